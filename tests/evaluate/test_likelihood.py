"""Log-likelihoods of many weight vectors against one alone, and gradients against autograd."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.evaluate import likelihood
from lowland.zoo import MLP, ConvNet, uci_net
from tests.evaluate.test_planner import LooksAtValues

N = 5
# of attention, which the planner therefore does not map over
pytestmark = pytest.mark.filterwarnings("ignore:.*batching rule")


def regression(rows=(30, 7), **options):
    torch.manual_seed(0)
    data = [(torch.randn(n, 4), torch.randn(n, 1)) for n in rows]
    return ll.LossSurface(uci_net(inputs=4, hidden=6), ll.Regression("learned"), data, **options)


def classifier(rows=(16, 16, 9)):
    torch.manual_seed(0)
    data = [(torch.randn(n, 5), torch.randint(3, (n,))) for n in rows]
    data[0][1][:4] = -100
    return ll.LossSurface(MLP(inputs=5, outputs=3, widths=(8,)), ll.Classification(), data)


class Words(nn.Module):
    """Tied embeddings and attention."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.attend = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.attend(self.embed(ids)))


def words():
    torch.manual_seed(0)
    ids = torch.randint(11, (6, 7))
    labels = ids.masked_fill(torch.rand(6, 7) < 0.3, -100)
    return ll.LossSurface(
        Words(), ll.LanguageModeling(), [(ids[:4], labels[:4]), (ids[4:], labels[4:])]
    )


def with_batchnorm():
    torch.manual_seed(0)
    data = [(torch.randn(n, 1, 6, 6), torch.randint(3, (n,))) for n in (12, 5)]
    net = ConvNet(channels=1, widths=(3, 4), classes=3)
    return ll.LossSurface(net, ll.Classification(), data)


def unmapped():
    torch.manual_seed(0)
    data = [(torch.randn(9, 6), torch.randint(3, (9,)))]
    return ll.LossSurface(LooksAtValues(), ll.Classification(), data)


BUILDS = [regression, classifier, words, with_batchnorm, unmapped]


def weights_of(surface, n=N, scale=0.2):
    g = torch.Generator().manual_seed(1)
    w = surface.layout.flatten(surface.template.module)
    return w + scale * torch.randn(n, len(w), generator=g)


def one_by_one(surface, weights):
    return torch.stack([surface.log_likelihood(w) for w in weights])


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("strategy", [None, "points", "batches", "vmap"])
def test_each_is_that_of_one_alone(build, strategy):
    if build is unmapped and strategy == "vmap":
        pytest.skip("has no batched form")
    surface = build()
    weights = weights_of(surface)
    expected = one_by_one(surface, weights)
    result = ll.LogLikelihood(surface, strategy=strategy)(weights)
    assert result.dtype == torch.float64
    torch.testing.assert_close(result, expected, rtol=2e-6, atol=1e-5)
    few = ll.LogLikelihood(surface, strategy=strategy, chunk=2)(weights)
    torch.testing.assert_close(few, expected, rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("strategy", ["points", "vmap"])
def test_batch_size_and_order_do_not_matter(strategy):
    surface = regression(rows=(300,))
    weights = weights_of(surface)
    x, y = next(iter(surface.data)).args[0], next(iter(surface.data)).target
    expected = ll.LogLikelihood(surface, strategy=strategy)(weights)
    for size, order in (
        (300, torch.randperm(300)),
        (7, torch.arange(300)),
        (64, torch.randperm(300)),
    ):
        loader = [(x[at], y[at]) for at in order.split(size)]
        result = ll.LogLikelihood(surface, loader=loader, strategy=strategy)(weights)
        torch.testing.assert_close(result, expected, rtol=1e-6, atol=0)


def test_many_examples_are_split_into_batches(monkeypatch):
    surface = regression(rows=(100, 30))
    weights = weights_of(surface)
    expected = one_by_one(surface, weights)
    monkeypatch.setattr("lowland.evaluate.rebatch._BATCH", 40)
    function = ll.LogLikelihood(surface)
    assert [len(batch.target) for batch in function.batches] == [40, 40, 20, 30]
    torch.testing.assert_close(function(weights), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("strategy", ["points", "vmap", "streamed"])
def test_a_point_that_is_not_finite_changes_no_other(strategy, trace, monkeypatch):
    surface = classifier()
    weights = weights_of(surface)
    expected = one_by_one(surface, weights)
    weights[1, 3] = torch.nan
    weights[3] = 1e30
    if strategy == "streamed":
        monkeypatch.setattr(type(surface.data), "resident", lambda self: None)
        strategy = None
    function = ll.LogLikelihood(surface, strategy=strategy, trace=trace)
    result = function(weights)
    assert not bool(torch.isfinite(result[[1, 3]]).any())
    torch.testing.assert_close(result[[0, 2, 4]], expected[[0, 2, 4]], rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("build", [regression, classifier, with_batchnorm])
def test_examples_that_do_not_fit_are_read_again(build, monkeypatch):
    surface = build()
    weights = weights_of(surface)
    expected = one_by_one(surface, weights)
    monkeypatch.setattr(type(surface.data), "resident", lambda self: None)
    function = ll.LogLikelihood(surface)
    assert function.batches is None
    torch.testing.assert_close(function(weights), expected, rtol=2e-6, atol=1e-5)
    line = ll.Line(weights[0], weights[1])
    value, _ = function.value_and_grad(line, torch.tensor([[0.0]]))
    torch.testing.assert_close(value, expected[:1], rtol=2e-6, atol=1e-5)


def shapes(surface):
    w = weights_of(surface, 4, 0.1)
    basis = torch.stack([w[1] - w[0], w[2] - w[0]])
    bezier = ll.Bezier.between(w[0], w[1], bends=1)
    bezier = bezier.with_anchors(bezier.anchors + 0.05 * torch.randn_like(bezier.anchors))
    return [ll.Subspace(w[0], basis), bezier, ll.Simplex([w[0], w[1], w[2]])]


@pytest.mark.parametrize("build", [regression, classifier, words, with_batchnorm])
def test_gradients_are_those_of_autograd_in_float64(build):
    surface = build()
    model = surface.template.module
    data = [
        tuple(t.double() if t.is_floating_point() else t for t in (*batch.args, batch.target))
        for batch in surface.data
    ]
    wide = ll.LossSurface(model.requires_grad_(True).double(), surface.task, data)
    model.requires_grad_(False).float()
    task, items = surface.task, sum(surface.task.count(batch) for batch in data)
    for shape in shapes(surface):
        exact = shape.with_anchors(shape.anchors.double())
        coords = shape.sample_coords(3, generator=torch.Generator().manual_seed(2))
        values, slopes = [], []
        for z in coords:
            _, gradient = wide.value_and_grad(exact(z[None])[0])
            values.append(-items * wide(exact(z[None])[0]))
            slopes.append(-items * exact.derivative(z[None])[0] @ gradient)
        expected, slope = torch.stack(values), torch.stack(slopes)
        for strategy in (None, "points", "vmap"):
            function = ll.LogLikelihood(surface, strategy=strategy)
            value, gradient = function.value_and_grad(shape, coords)
            assert value.dtype == gradient.dtype == torch.float64
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-4)
            torch.testing.assert_close(
                gradient, slope, rtol=2e-4, atol=2e-4 * float(slope.abs().max())
            )
            torch.testing.assert_close(
                function.along(shape, coords), expected, rtol=1e-5, atol=1e-4
            )
    assert task is surface.task


@pytest.mark.parametrize("build", [regression, classifier, words])
def test_traced_graphs_give_the_same(build):
    surface = build()
    weights = weights_of(surface)
    plain = ll.LogLikelihood(surface, strategy="vmap", trace=False)
    traced = ll.LogLikelihood(surface, strategy="vmap", trace=True)
    traced(weights)
    assert isinstance(traced._graphs[N], torch.fx.GraphModule)
    again = weights_of(surface, scale=0.4)  # other values than it was traced with
    torch.testing.assert_close(traced(again), plain(again), rtol=1e-7, atol=1e-6)
    torch.testing.assert_close(traced(again[:3]), plain(again[:3]), rtol=1e-7, atol=1e-6)


def test_after_many_calls_a_graph_is_traced(monkeypatch):
    sizes = []
    monkeypatch.setattr(likelihood, "trace_function", lambda f, x: sizes.append(len(x)) or f)
    monkeypatch.setattr(likelihood, "_TRACE_AFTER", 3)
    surface = regression()
    function = ll.LogLikelihood(surface, strategy="vmap")
    for _ in range(8):
        function(weights_of(surface))
    assert sizes == [N]


def test_a_restored_likelihood_has_its_graphs():
    surface = regression()
    first = ll.LogLikelihood(surface, strategy="vmap", trace=True)
    expected = first(weights_of(surface))
    again = ll.LogLikelihood(surface, strategy="vmap", trace=True)
    again.load_state_dict(first.state_dict())
    assert isinstance(again._graphs[N], torch.fx.GraphModule)
    assert torch.equal(again(weights_of(surface)), expected)


class Doubles(nn.Linear):
    def forward(self, x):
        return super().forward(x.mul_(2))


def test_a_model_that_writes_into_its_inputs():
    data = [(torch.randn(9, 4), torch.randn(9, 1))]
    task = ll.Regression(noise_variance=1.0)
    with pytest.raises(ll.DataError, match="work on a copy"):
        ll.LogLikelihood(ll.LossSurface(Doubles(4, 1), task, data))
    # in-place operations on other tensors are fine
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 1))
    surface = ll.LossSurface(net, task, [(torch.randn(9, 4), torch.randn(9, 1))])
    function = ll.LogLikelihood(surface)
    assert torch.equal(function(weights_of(surface)), function(weights_of(surface)))


@pytest.mark.parametrize("where", ["2", "bias", "0"])
def test_traced_graphs_leave_data_unchanged(where):
    """The product of data and a frozen first layer is computed once, and not added to."""
    x, y = torch.randn(9, 5), torch.randint(3, (9,))
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    surface = ll.LossSurface(net, ll.Classification(), [(x, y)], where=where)
    weights = weights_of(surface)
    plain = ll.LogLikelihood(surface, strategy="vmap", trace=False)(weights)
    traced = ll.LogLikelihood(surface, strategy="vmap", trace=True)
    for _ in range(3):
        torch.testing.assert_close(traced(weights), plain, rtol=1e-7, atol=1e-6)
    assert isinstance(traced._graphs[N], torch.fx.GraphModule)


def test_memory_of_large_networks_stays_small():
    """Of a gradient: anchors, one weight vector and its gradient."""
    surface = regression()
    shape = shapes(surface)[0]
    function = ll.LogLikelihood(surface, strategy="points")
    seen = []
    inner = function._gradient
    function._gradient = lambda *a: seen.append(len(a[1])) or inner(*a)
    function.value_and_grad(shape, torch.zeros(4, 2))
    assert seen == [1, 1, 1, 1]


def test_threads_are_set_and_set_back():
    surface = regression()
    seen = []
    before = torch.get_num_threads()
    forward = surface.forward
    surface.forward = lambda *a, **k: seen.append(torch.get_num_threads()) or forward(*a, **k)
    function = ll.LogLikelihood(surface, threads=1, strategy="points")
    seen.clear()
    function(weights_of(surface))
    assert set(seen) == {1}
    assert torch.get_num_threads() == before


def test_arguments_are_checked_at_once():
    surface = classifier()
    with pytest.raises(ll.ConfigError, match="strategy"):
        ll.LogLikelihood(surface, strategy="fast")
    with pytest.raises(ll.ConfigError, match="batchnorm"):
        ll.LogLikelihood(surface, batchnorm="fresh")
    with pytest.raises(ll.LayoutError, match="another model"):
        ll.LogLikelihood(surface)(torch.zeros(2, 3))
    bad = [(torch.randn(4, 5), torch.full((4,), 9))]
    with pytest.raises(ll.DataError, match="out of range"):
        ll.LogLikelihood(surface, loader=bad)


@pytest.mark.parametrize("build", [regression, classifier])
@pytest.mark.parametrize("model", [torch.float32, torch.float64])
def test_a_subspace_of_another_precision_than_the_model(build, model, monkeypatch):
    """Before and after operations are bare, which take the model's precision alone."""
    surface = build()
    if model == torch.float64:
        module = surface.template.module.double().requires_grad_()
        data = [(b.args[0].double(), b.target) for b in surface.data]
        data = [(x, y.double() if y.is_floating_point() else y) for x, y in data]
        surface = ll.LossSurface(module, surface.task, data)
    monkeypatch.setattr(likelihood, "_TRACE_AFTER", 3)
    other = torch.float64 if model == torch.float32 else torch.float32
    w = surface.layout.flatten(surface.template.module).to(other)
    g = torch.Generator().manual_seed(0)
    sub = ll.Subspace(w, torch.randn(2, len(w), generator=g).to(other) / 10)
    counted = likelihood.LogLikelihood(surface)
    z = torch.randn(4, 2, generator=g, dtype=torch.float64)
    values = torch.stack([counted.along(sub, z) for _ in range(6)])
    expected = torch.stack([surface.log_likelihood(sub(one[None])[0].to(model)) for one in z])
    torch.testing.assert_close(values, expected.expand(6, -1).to(values), rtol=1e-5, atol=1e-4)


def test_in_half_precision_one_network_goes_through_at_a_time(monkeypatch):
    """Many at once are rounded otherwise, by whole nats."""
    surface = classifier((400,))
    module = surface.template.module.bfloat16().requires_grad_()
    data = [(b.args[0].bfloat16(), b.target) for b in surface.data]
    surface = ll.LossSurface(module, surface.task, data)
    monkeypatch.setattr(likelihood, "_TRACE_AFTER", 3)
    counted = likelihood.LogLikelihood(surface)
    w = weights_of(surface, n=4)
    values = [counted(w) for _ in range(6)]
    alone = torch.cat([likelihood.LogLikelihood(surface)(one[None]) for one in w])
    assert all(torch.equal(result, alone) for result in values)
