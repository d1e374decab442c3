"""Model averages against float64 recomputation by hand."""

import gc
import math
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import lowland as ll
from lowland.evaluate import model_average, planner
from lowland.tensor_files import same_tree
from tests.models import (
    TiedLM,
    blobs,
    conv_bn,
    dict_batches,
    every_case,
    images,
    mlp,
    targets,
    tokens,
)

TASK = ll.Classification()


def scattered(layout, n, spread=0.7, seed=0):
    """(n, P) weight vectors."""
    return spread * torch.randn(n, layout.size, generator=torch.Generator().manual_seed(seed))


def small(batches=None, task=None, net=None):
    net = mlp() if net is None else net
    surface = ll.LossSurface(net, task or TASK, blobs() if batches is None else batches)
    return net, surface


def logits(net, layout, weights, xs):
    """(S, N, ...) float64 outputs, one model at a time."""
    net = net.double().eval()
    out = []
    for w in weights.double():
        state = dict(layout.unflatten(w).items())
        out.append(torch.cat([functional_call(net, state, (x.double(),)) for x in xs]).detach())
    return torch.stack(out)


# -- averages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_probabilities_are_averaged_and_logits_are_not(chunk):
    net, surface = small()
    weights = scattered(surface.layout, 8, 1.5)
    pred = ll.predict(surface, weights, strategy="vmap" if chunk > 1 else "points", chunk=chunk)
    z = logits(net, surface.layout, weights, [x for x, _ in blobs()])
    y = torch.cat([y for _, y in blobs()])
    p = z.softmax(2)
    mean = p.mean(0)
    torch.testing.assert_close(pred.probs.double(), mean, atol=1e-6, rtol=0)
    twin = z.mean(0).softmax(1)  # averaged logits
    assert not torch.allclose(pred.probs.double(), twin, atol=1e-2)
    # the likelihood: log of the mean, by every prefix
    each = z.log_softmax(2)[:, torch.arange(len(y)), y]  # (S, N)
    prefixes = [
        -(each[:s].logsumexp(0) - math.log(s)).mean().item() for s in range(1, len(weights) + 1)
    ]
    np.testing.assert_allclose(pred.nll_by_samples, prefixes, atol=1e-6)
    assert pred.metrics()["nll"] == pytest.approx(prefixes[-1], abs=1e-6)
    twin_nll = -each.mean().item()  # mean of log-likelihoods
    assert abs(pred.metrics()["nll"] - twin_nll) > 0.05
    torch.testing.assert_close(
        pred.target_log_prob.double(), each.logsumexp(0) - math.log(8), atol=1e-6, rtol=0
    )
    # entropies
    entropy = -(mean * mean.log()).sum(1)
    expected = -(p * p.log()).sum(2).mean(0)
    torch.testing.assert_close(pred.entropy.double(), entropy, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        pred.mutual_information.double(), entropy - expected, atol=1e-5, rtol=0
    )
    assert torch.equal(pred.targets, y)
    assert pred.samples == 8


def test_likelihoods_that_underflow_are_averaged():
    """exp(-500) is 0 in float32: only logsumexp gets this right."""
    net = nn.Linear(1, 2, bias=False)
    surface = ll.LossSurface(net, TASK, [(torch.ones(1, 1), torch.tensor([0]))])
    pred = ll.predict(surface, torch.tensor([[-500.0, 0.0], [-502.0, 0.0]]))
    expected = 500 - math.log((1 + math.exp(-2)) / 2)
    assert pred.metrics()["nll"] == pytest.approx(expected, abs=1e-3)


def test_one_sample_has_no_mutual_information():
    _, surface = small()
    pred = ll.predict(surface, surface.layout.flatten(mlp()))
    torch.testing.assert_close(pred.mutual_information, torch.zeros(21), atol=1e-6, rtol=0)


@every_case
def test_any_model(case):
    """Against outputs of the surface, averaged by hand."""
    model = case.model()
    surface = case.surface(model)
    w = surface.layout.flatten(model)
    weights = [w, w * 0.9, w * 1.1]
    pred = ll.predict(surface, weights)
    assert pred.samples == 3
    by_hand = []
    for each in weights:
        buffers = surface.buffers_for(ll.Point(each))
        total = 0
        for batch in case.batches():
            args, kwargs, target = surface.task.unpack(batch)
            output = surface.forward(surface.layout.materialise(each), buffers, args, kwargs)
            total = total + surface.task.nll(output, target).detach().double().sum()
        by_hand.append(float(total))
    assert float(surface(w)) * surface.data.items == pytest.approx(by_hand[0], rel=1e-5)
    assert pred.nll_by_samples[0] == pytest.approx(float(surface(w)), rel=1e-5)
    assert all(math.isfinite(v) for v in pred.metrics().values())


# -- memory ----------------------------------------------------------------------------------------


def live_bytes():
    """The bytes of the storages of all plain tensors that are alive.

    Subclasses hold plain tensors or no memory (the fake ones that torch keeps after a trace), and
    what vmap maps over, in a traceback that somebody still holds, has no storage of its own.
    """
    gc.collect()
    plain = [o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter)]
    storages = [
        t.untyped_storage() for t in plain if not torch._C._functorch.is_functorch_wrapped_tensor(t)
    ]
    return sum({s.data_ptr(): s.nbytes() for s in storages}.values())


@pytest.mark.usefixtures("new_objects")
def test_memory_does_not_grow_with_samples(monkeypatch):
    _, surface = small([(torch.randn(200, 6), torch.randint(3, (200,)))])

    def peak(samples):
        peaks = []
        end = model_average.ModelAverage.end

        def watched(self, first, n):
            end(self, first, n)
            if first == samples - 1:
                peaks.append(live_bytes())

        monkeypatch.setattr(model_average.ModelAverage, "end", watched)
        post = ll.Gaussian(torch.zeros(surface.layout.size), torch.ones(surface.layout.size))
        ll.predict(surface, post, samples=samples, strategy="points")
        monkeypatch.setattr(model_average.ModelAverage, "end", end)
        return peaks[0]

    peaks = {s: peak(s) for s in (5, 50)}
    one = 200 * 3 * 4  # one sample's probabilities
    assert peaks[50] - peaks[5] < one / 2, peaks


def test_only_one_draw_is_alive_at_a_time():
    _, surface = small()
    alive = []

    def draws():
        for seed in range(40):
            w = scattered(surface.layout, 1, seed=seed)[0]
            alive.append(weakref.ref(w))
            yield w
            del w
            assert sum(r() is not None for r in alive) <= 3

    ll.predict(surface, draws(), strategy="points")
    assert len(alive) == 40


# -- arguments -------------------------------------------------------------------------------------


def test_keep():
    _, surface = small()
    weights = scattered(surface.layout, 4)
    probs, target, none = (
        ll.predict(surface, weights, keep=keep, strategy="points")
        for keep in ("probs", "target", "none")
    )
    assert probs.metrics() == target.metrics() == none.metrics()
    assert target.probs is None
    assert torch.equal(target.entropy, probs.entropy)
    assert torch.equal(target.target_log_prob, probs.target_log_prob)
    assert none.target_log_prob is none.entropy is none.probs is None
    assert torch.equal(none.nll_by_samples, probs.nll_by_samples)
    with pytest.raises(ll.ConfigError, match="keep"):
        ll.predict(surface, weights, keep="logits")


@pytest.mark.parametrize(
    "unlabelled",
    [lambda x: x, lambda x: (x,), lambda x: [x], lambda x: {"input": x}],
    ids=["tensor", "1-tuple", "list", "dict"],
)
def test_examples_without_labels(unlabelled):
    _, surface = small()
    weights = scattered(surface.layout, 3)
    full = ll.predict(surface, weights)
    pred = ll.predict(surface, weights, [unlabelled(x) for x, _ in blobs()])
    assert torch.equal(pred.probs, full.probs)
    assert torch.equal(pred.entropy, full.entropy)
    assert pred.targets is pred.target_log_prob is pred.nll_by_samples is None
    assert pred.metrics() == {}


def test_dict_batches():
    from tests.models import Logits

    net = Logits()
    surface = ll.LossSurface(net, TASK, dict_batches())
    w = surface.layout.flatten(net)
    plain = ll.predict(ll.LossSurface(net.net, TASK, [(x * 0.5, y) for x, y in blobs()]), w)
    assert torch.equal(ll.predict(surface, w).probs, plain.probs)


def test_the_number_of_samples():
    _, surface = small()
    p = surface.layout.size
    gaussian = ll.Gaussian(torch.zeros(p), torch.ones(p))
    assert ll.predict(surface, gaussian).samples == 30
    assert ll.predict(surface, gaussian, samples=4).samples == 4
    weights = scattered(surface.layout, 5)
    ensemble = ll.Ensemble(weights)
    assert ll.predict(surface, ensemble).samples == 5
    assert ll.predict(surface, ensemble, samples=9).samples == 5
    assert ll.predict(surface, ensemble, samples=2).samples == 2
    assert ll.predict(surface, weights[0]).samples == 1
    assert ll.predict(surface, weights).samples == 5
    assert ll.predict(surface, iter(weights)).samples == 5
    assert ll.predict(surface, list(weights), samples=2).samples == 2
    assert ll.predict(surface, ll.Point(weights[0])).samples == 1
    with pytest.raises(ll.ConfigError, match="samples"):
        ll.predict(surface, gaussian, samples=0)
    with pytest.raises(ll.DataError, match="no weight vector"):
        ll.predict(surface, [])
    with pytest.raises(ll.DataError, match="expected"):
        ll.predict(surface, 3)
    with pytest.raises(ll.LayoutError):
        ll.predict(surface, weights[:, 1:])
    with pytest.raises(ll.LayoutError):
        ll.predict(surface, [weights[0], weights[0, 1:]])


def test_moments_are_posteriors():
    _net, surface = small()
    layout = surface.layout
    swag, swa = ll.SWAG(layout, rank=2), ll.SWA(layout)
    for w in scattered(layout, 4):
        swag.update(w), swa.update(w)
    a = ll.predict(surface, swag, samples=6, seed=3)
    b = ll.predict(surface, swag.posterior(), samples=6, seed=3)
    assert torch.equal(a.probs, b.probs)
    c = ll.predict(surface, swag, samples=6, seed=4)
    assert not torch.equal(a.probs, c.probs)
    assert torch.equal(ll.predict(surface, swa).probs, ll.predict(surface, swa.mean).probs)


def test_progress():
    _, surface = small()
    weights = scattered(surface.layout, 5)
    calls = []
    report = lambda done, total: calls.append((done, total))  # noqa: E731
    ll.predict(surface, weights, strategy="points", progress=report)
    assert calls == [(i, 5) for i in range(1, 6)]
    calls.clear()
    ll.predict(surface, list(weights), strategy="vmap", chunk=2, samples=3, progress=report)
    assert calls == [(2, 3), (3, 3)]
    calls.clear()
    ll.predict(surface, iter(weights), strategy="points", progress=report)
    assert calls[-1] == (5, None)


# -- BatchNorm -------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["points", "batches", "vmap"])
def test_each_draw_has_its_own_statistics(strategy):
    net = conv_bn()
    surface = ll.LossSurface(net, TASK, images())
    w = surface.layout.flatten(net)
    weights = torch.stack([w, 0.5 * w, 1.5 * w])
    result = ll.predict(surface, weights, strategy=strategy, chunk=2)
    by_hand = []
    for each in weights:
        twin = conv_bn().eval()
        surface.layout.load_(twin, each)
        twin.load_state_dict(surface.refresh(each), strict=False)
        by_hand.append(torch.cat([twin(x).detach() for x, _ in images()]).softmax(1))
    torch.testing.assert_close(result.probs, torch.stack(by_hand).mean(0), atol=1e-5, rtol=1e-4)
    frozen = ll.predict(surface, weights, strategy=strategy, chunk=2, batchnorm="frozen")
    twin = net.eval()
    frozen_hand = []
    for each in weights:
        surface.layout.load_(twin, each)
        frozen_hand.append(torch.cat([twin(x).detach() for x, _ in images()]).softmax(1))
    torch.testing.assert_close(frozen.probs, torch.stack(frozen_hand).mean(0), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(frozen.probs, result.probs, atol=1e-2)


@pytest.mark.parametrize("strategy", ["points", "vmap"])
def test_members_keep_their_own_buffers_when_frozen(strategy):
    nets = []
    for seed in range(3):
        torch.manual_seed(seed)
        nets.append(conv_bn())
    surface = ll.LossSurface(nets[0], TASK, images())
    members = [
        ll.Point(surface.layout.flatten(net), {n: b.clone() for n, b in net.named_buffers()})
        for net in nets
    ]
    result = ll.predict(
        surface, ll.Ensemble(members), batchnorm="frozen", strategy=strategy, chunk=2
    )
    by_hand = [torch.cat([n.eval()(x).detach() for x, _ in images()]).softmax(1) for n in nets]
    torch.testing.assert_close(result.probs, torch.stack(by_hand).mean(0), atol=1e-5, rtol=1e-4)
    # the broken twin: one model's statistics for all
    twin = ll.predict(surface, torch.stack([m.weights for m in members]), batchnorm="frozen")
    assert not torch.allclose(result.probs, twin.probs, atol=1e-2)


# -- forms of likelihood ---------------------------------------------------------------------------


def test_binary():
    net = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))
    batches = [(x, (y > 0).long()) for x, y in blobs()]
    surface = ll.LossSurface(net, TASK, batches)
    weights = scattered(surface.layout, 5, 1.0)
    pred = ll.predict(surface, weights)
    p = logits(net, surface.layout, weights, [x for x, _ in batches]).sigmoid().mean(0)[:, 0]
    y = torch.cat([y for _, y in batches]).double()
    torch.testing.assert_close(pred.probs[:, 1].double(), p, atol=1e-6, rtol=0)
    torch.testing.assert_close(pred.probs.sum(1), torch.ones(21))
    result = pred.metrics()
    assert result["nll"] == pytest.approx(
        -(y * p.log() + (1 - y) * (1 - p).log()).mean().item(), abs=1e-5
    )
    assert result["accuracy"] == pytest.approx(((p > 0.5) == y).double().mean().item())
    assert result["brier"] == pytest.approx(2 * ((p - y) ** 2).mean().item(), abs=1e-5)


@pytest.mark.parametrize("form", [None, "multilabel"])
def test_multilabel(form):
    net, task = mlp(), ll.Classification(form)
    g = torch.Generator().manual_seed(1)
    batches = [(x, torch.randint(2, (len(x), 3), generator=g).float()) for x, _ in blobs()]
    surface = ll.LossSurface(net, task, batches)
    weights = scattered(surface.layout, 5, 1.0)
    pred = ll.predict(surface, weights)
    s = logits(net, surface.layout, weights, [x for x, _ in batches]).sigmoid()
    y = torch.cat([y for _, y in batches]).double()
    # an example is an item: the product over its labels is averaged over samples
    each = (y * s.log() + (1 - y) * (1 - s).log()).sum(2)
    nll = -(each.logsumexp(0) - math.log(5)).mean().item()
    assert pred.metrics()["nll"] == pytest.approx(nll, abs=1e-5)
    assert pred.metrics()["accuracy"] == pytest.approx(
        ((s.mean(0) > 0.5) == y).double().mean().item()
    )
    assert pred.metrics()["brier"] == pytest.approx(
        ((s.mean(0) - y) ** 2).sum(1).mean().item(), abs=1e-5
    )
    p = s.mean(0)
    torch.testing.assert_close(pred.probs.double(), p, atol=1e-6, rtol=0)  # not a softmax
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).sum(1)
    torch.testing.assert_close(pred.entropy.double(), entropy, atol=1e-5, rtol=0)
    table = surface.evaluate(weights[:1])
    assert table.brier.item() == pytest.approx(((s[0] - y) ** 2).sum(1).mean().item(), abs=1e-5)


def dense(sizes=((4, 5), (4, 5), (4, 5))):
    g = torch.Generator().manual_seed(2)
    out = []
    for n, (h, w) in zip((3, 3, 2), sizes, strict=True):
        y = torch.randint(4, (n, h, w), generator=g)
        y[0, 0] = -100
        out.append((torch.randn(n, 2, h, w, generator=g), y))
    return out


@pytest.mark.parametrize("sizes", [((4, 5),) * 3, ((4, 5), (4, 6), (5, 4))], ids=["even", "ragged"])
@pytest.mark.parametrize("strategy", ["points", "vmap"])
def test_dense_labels_with_ignored_positions(sizes, strategy):
    net = nn.Conv2d(2, 4, 3, padding=1)
    batches = dense(sizes)
    surface = ll.LossSurface(net, TASK, batches)
    weights = scattered(surface.layout, 4, 0.5)
    pred = ll.predict(surface, weights, strategy=strategy)
    net = net.double()
    outputs, labels = [], []
    for x, y in batches:
        parts = []
        for w in weights.double():
            z = functional_call(net, dict(surface.layout.unflatten(w)), (x.double(),))
            parts.append(z.softmax(1).movedim(1, -1)[y != -100].detach())
        outputs.append(torch.stack(parts))
        labels.append(y[y != -100])
    probs, y = torch.cat(outputs, 1), torch.cat(labels)  # (S, items, C)
    p = probs.mean(0)
    assert pred.metrics()["nll"] == pytest.approx(
        -p[torch.arange(len(y)), y].log().mean().item(), abs=1e-5
    )
    assert pred.metrics()["accuracy"] == pytest.approx((p.argmax(1) == y).double().mean().item())
    hot = nn.functional.one_hot(y, 4)
    assert pred.metrics()["brier"] == pytest.approx(((p - hot) ** 2).sum(1).mean().item(), abs=1e-5)
    if len(set(sizes)) == 1:
        assert pred.probs.shape == (8, 4, 4, 5)
        assert pred.entropy.shape == (8, 4, 5)
        assert pred.targets.shape == (8, 4, 5)
    else:
        assert pred.probs.shape == (3 * 20 + 3 * 24 + 2 * 20, 4)
        assert pred.entropy.shape == pred.targets.shape == pred.probs.shape[:1]


@pytest.mark.filterwarnings("ignore:no temperature fits best")  # of a network that knows nothing
@pytest.mark.parametrize("lengths", [(6, 6, 6), (6, 4, 9)], ids=["even", "ragged"])
def test_language_models_count_the_tokens_that_are_not_masked(lengths):
    torch.manual_seed(0)
    net = TiedLM()
    batches = [tokens((n,), length=t)[0] for n, t in zip((4, 3, 2), lengths, strict=True)]
    surface = ll.LossSurface(net, ll.LanguageModeling(), batches)
    weights = [surface.layout.flatten(net) * s for s in (1.0, 2.0, 0.5)]
    pred = ll.predict(surface, weights)
    p, y = [], []
    for batch in batches:
        each = []
        for w in weights:
            state = dict(surface.layout.unflatten(w)) | {"head.weight": w[: 11 * 5].view(11, 5)}
            z = functional_call(net, state, (), batch, tie_weights=False).logits
            each.append(z.double().softmax(2)[:, :-1].detach())
        mask = batch["attention_mask"][:, 1:] == 1
        p.append(torch.stack(each).mean(0)[mask])
        y.append(batch["input_ids"][:, 1:][mask])
    p, y = torch.cat(p), torch.cat(y)
    nll = -p[torch.arange(len(y)), y].log().mean().item()
    result = pred.metrics()
    assert result["nll"] == pytest.approx(nll, abs=1e-5)
    assert result["perplexity"] == pytest.approx(math.exp(nll), rel=1e-4)
    assert result["accuracy"] == pytest.approx((p.argmax(1) == y).double().mean().item())
    assert len(pred.target_log_prob) == len(y)
    assert len(pred.probs) == len(pred.targets) == len(pred.entropy)  # a row a token
    # and so they can be tempered
    t = ll.fit_temperature(pred)
    assert ll.temper(pred, t).metrics()["nll"] <= nll + 1e-9


@pytest.mark.parametrize("units", [(0.0, 1.0), (5.0, 3.0), ([1.0, -2.0], [0.5, 4.0])], ids=str)
def test_regression_is_a_mixture(units):
    shift, std = (torch.as_tensor(u, dtype=torch.float64) for u in units)
    net = mlp(6, 5, 4)  # two targets: means, raw variances
    task = ll.Regression(target_mean=shift, target_std=std)
    g = torch.Generator().manual_seed(3)
    batches = [(x, torch.randn(len(x), 2, generator=g)) for x, _ in blobs()]
    surface = ll.LossSurface(net, task, batches)
    weights = scattered(surface.layout, 6, 1.0)
    pred = ll.predict(surface, weights)
    z = logits(net, surface.layout, weights, [x for x, _ in batches])
    m, v = z[..., :2], nn.functional.softplus(z[..., 2:]) + 1e-6
    y = torch.cat([y for _, y in batches]).double()
    # in the target's own units
    m, v, y_own = m * std + shift, v * std**2, y * std + shift
    each = torch.distributions.Normal(m, v.sqrt()).log_prob(y_own).sum(2)
    curve = [-(each[:s].logsumexp(0) - math.log(s)).mean().item() for s in range(1, 7)]
    np.testing.assert_allclose(pred.nll_by_samples, curve, atol=1e-5)
    mean, total = m.mean(0), v.mean(0) + m.var(0, correction=0)
    torch.testing.assert_close(pred.mean, mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pred.variance, total, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(pred.targets, y_own, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        -pred.target_log_prob.double().mean().item(), curve[-1], atol=1e-5, rtol=0
    )
    result = pred.metrics()
    gaussian = -torch.distributions.Normal(mean, total.sqrt()).log_prob(y_own).sum(1).mean().item()
    inside = ((y_own - mean).abs() <= 1.959964 * total.sqrt()).double().mean().item()
    assert result["nll"] == pytest.approx(curve[-1], abs=1e-5)
    assert result["nll_gaussian"] == pytest.approx(gaussian, abs=1e-5)
    assert result["rmse"] == pytest.approx(((y_own - mean) ** 2).mean().sqrt().item(), abs=1e-5)
    assert result["coverage"] == pytest.approx(inside)
    scale = std.log().expand(2).sum().item()
    assert result["nll_normalised"] == pytest.approx(result["nll"] - scale, abs=1e-6)
    assert result["nll_gaussian_normalised"] == pytest.approx(
        result["nll_gaussian"] - scale, abs=1e-6
    )
    within = ((y - (mean - shift) / std) ** 2).mean().sqrt().item()
    assert result["rmse_normalised"] == pytest.approx(within, abs=1e-5)
    # the mixture is not its moment match, and the mean of variances is not the total
    assert abs(result["nll"] - result["nll_gaussian"]) > 1e-2
    assert not torch.allclose(pred.variance, v.mean(0), rtol=0.05)


def far_away(dtype=torch.float64, sd=1e-4, middle=1e7):
    """Networks whose means lie 1e-4 around 1e7, and the noise is as small."""
    net = nn.Linear(1, 1, bias=False, dtype=dtype)
    rows = [
        (torch.ones(n, 1, dtype=dtype), torch.full((n, 1), middle, dtype=dtype)) for n in (3, 2)
    ]
    surface = ll.LossSurface(net, ll.Regression(noise_variance=sd**2), rows)
    return surface, middle + sd * torch.tensor([[-2.0], [1.0], [0.0], [3.0], [3.0]], dtype=dtype)


@pytest.mark.parametrize("plan", [("points", 1), ("batches", 2), ("vmap", 3)], ids=str)
def test_the_variance_of_means_does_not_cancel(plan):
    """E[m^2] - E[m]^2 loses every digit here."""
    surface, weights = far_away()
    strategy, chunk = plan
    pred = ll.predict(surface, weights, strategy=strategy, chunk=chunk)
    between = (weights - 1e7).var(correction=0)
    right = torch.full((5, 1), float(between)) + 1e-8
    torch.testing.assert_close(pred.variance, right.double(), rtol=1e-4, atol=0)
    error = float(weights.mean()) - 1e7
    v = float(pred.variance[0])
    gaussian = 0.5 * (math.log(2 * math.pi * v) + error**2 / v)
    assert pred.metrics()["nll_gaussian"] == pytest.approx(gaussian, rel=1e-5)
    assert ll.scores(pred)["sd"] == pytest.approx(math.sqrt(v))
    assert float(ll.uncertainties(pred)["variance"][0]) == pytest.approx(math.log(v))


def test_equal_networks_have_the_variance_of_their_noise():
    surface, _ = far_away(torch.float32, middle=3e4)
    pred = ll.predict(surface, torch.full((4, 1), 3e4))
    torch.testing.assert_close(pred.variance, torch.full((5, 1), 1e-8).double(), rtol=1e-6, atol=0)
    assert pred.metrics()["nll_gaussian"] == pytest.approx(math.log(2 * math.pi * 1e-8) / 2)
    pooled = ll.pool([pred, pred])
    torch.testing.assert_close(pooled.variance, pred.variance)


def test_functions_and_pools_keep_the_variance_of_means():
    surface, weights = far_away()
    pred = ll.predict(surface, weights)
    drawn = ll.functions(surface, weights, torch.ones(5, 1, dtype=torch.float64))
    torch.testing.assert_close(drawn.variance, pred.variance, rtol=1e-4, atol=0)
    pooled = ll.pool([ll.predict(surface, w) for w in weights])
    torch.testing.assert_close(pooled.variance, pred.variance, rtol=1e-4, atol=0)
    assert pooled.metrics()["nll_gaussian"] == pytest.approx(pred.metrics()["nll_gaussian"])


class Poisson(ll.Task):
    """Counts; looks at values, so it cannot be mapped over."""

    def nll(self, output, target):
        log_rate = output.squeeze(-1)
        return log_rate.exp() - target * log_rate + torch.lgamma(target + 1)

    def statistics(self, output):
        if bool((output > 1e6).any()):
            raise AssertionError
        return {"rate": output.squeeze(-1).exp()}

    def metrics(self, averages, target):
        return {"mae": float((averages["rate"] - target).abs().mean())}


@pytest.mark.parametrize("strategy", ["points", "batches", "vmap", None])
def test_a_custom_task(strategy):
    net = nn.Linear(6, 1)
    g = torch.Generator().manual_seed(3)
    batches = [(x, torch.randint(4, (len(x),), generator=g).float()) for x, _ in blobs()]
    surface = ll.LossSurface(net, Poisson(), batches)
    weights = scattered(surface.layout, 5, 0.3)
    pred = ll.predict(surface, weights, strategy=strategy)
    rate = logits(net, surface.layout, weights, [x for x, _ in batches])[..., 0].exp()
    y = torch.cat([y for _, y in batches]).double()
    nll = -torch.distributions.Poisson(rate).log_prob(y).logsumexp(0).sub(math.log(5)).mean().item()
    assert pred.metrics()["nll"] == pytest.approx(-nll if nll < 0 else nll, abs=1e-5)
    assert pred.metrics()["mae"] == pytest.approx((rate.mean(0) - y).abs().mean().item(), abs=1e-5)


class Reduced(ll.Task):
    def nll(self, output, target):
        return nn.functional.cross_entropy(output, target)


def test_a_reduced_loss_is_refused():
    _, surface = small(task=Reduced())
    with pytest.raises(ll.DataError, match="do not reduce"):
        ll.predict(surface, scattered(surface.layout, 2))


# -- loaders ---------------------------------------------------------------------------------------


def test_the_batches_do_not_matter():
    _, surface = small()
    weights = scattered(surface.layout, 4)
    a = ll.predict(surface, weights)
    b = ll.predict(
        surface, weights, blobs((21,)) and [tuple(map(torch.cat, zip(*blobs(), strict=True)))]
    )
    torch.testing.assert_close(a.probs, b.probs)
    assert a.metrics() == pytest.approx(b.metrics(), abs=1e-6)


@pytest.fixture
def no_memory(monkeypatch):
    """Nothing fits, so data are read again for each chunk of points."""
    monkeypatch.setattr("lowland.core.data.free_memory", lambda device: 0)


def data_set():
    return TensorDataset(*map(torch.cat, zip(*blobs(), strict=True)))


def test_streamed_data_give_the_same_as_resident_data(monkeypatch):
    _, surface = small()
    weights = scattered(surface.layout, 5)
    expected = ll.predict(surface, weights, DataLoader(data_set(), batch_size=4))
    monkeypatch.setattr("lowland.core.data.free_memory", lambda device: 0)
    # without chunk=, the planner's times would decide how often data are read
    monkeypatch.setattr(planner, "time_plan", lambda *args, **options: planner.SMALL)
    reads = []

    class Counted(TensorDataset):
        def __getitem__(self, i):
            reads.append(i)
            return super().__getitem__(i)

    for chunk in (1, 2, 5, None):
        reads.clear()
        loader = DataLoader(Counted(*data_set().tensors), batch_size=4)
        result = ll.predict(surface, weights, loader, chunk=chunk)
        torch.testing.assert_close(result.probs, expected.probs)
        assert result.metrics() == pytest.approx(expected.metrics(), abs=1e-6)
        passes = 1 + math.ceil(5 / (chunk or 5))  # the first one counts and checks the examples
        assert len(reads) <= passes * 21 + 4


def test_another_order_is_refused_where_data_are_read_again(no_memory):
    _, surface = small()
    weights = scattered(surface.layout, 5)
    with pytest.raises(ll.DataError, match="another order"):
        ll.predict(surface, weights, DataLoader(data_set(), batch_size=4, shuffle=True))


def test_another_order_does_not_matter_where_data_are_held():
    _, surface = small()
    weights = scattered(surface.layout, 5)
    a = ll.predict(surface, weights, DataLoader(data_set(), batch_size=4, shuffle=True))
    b = ll.predict(surface, weights)
    assert a.metrics() == pytest.approx(b.metrics(), abs=1e-6)


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield from zip(*data_set().tensors, strict=True)


@pytest.mark.parametrize("fits", [True, False])
def test_endless_loaders(fits, monkeypatch):
    if not fits:
        monkeypatch.setattr("lowland.core.data.free_memory", lambda device: 0)
    _, surface = small()
    weights = scattered(surface.layout, 3)
    result = ll.predict(surface, weights, DataLoader(Endless(), batch_size=4), count=10)
    assert len(result.probs) == 10
    full = ll.predict(surface, weights)
    torch.testing.assert_close(result.probs, full.probs[:10])


def test_count_of_the_surfaces_own_examples():
    _, surface = small()
    w = scattered(surface.layout, 1)
    assert torch.equal(
        ll.predict(surface, w, count=10).targets, ll.predict(surface, w).targets[:10]
    )


def test_empty_loaders_and_labels_out_of_range():
    _, surface = small()
    w = scattered(surface.layout, 2)
    with pytest.raises(ll.DataError, match="empty"):
        ll.predict(surface, w, [])
    with pytest.raises(ll.DataError, match="labels out of range"):
        ll.predict(surface, w, [(torch.randn(3, 6), torch.tensor([0, 1, 3]))])
    with pytest.raises(ll.DataError):
        ll.predict(surface, w, torch.randn(3, 6))


# -- values that are not finite --------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["points", "vmap"])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_draw_that_overflows_is_named(strategy, labelled):
    _, surface = small()
    weights = scattered(surface.layout, 5)
    weights[3] = 3e38  # finite, but no output of it is
    rows = None if labelled else [x for x, _ in blobs()]
    with pytest.raises(ll.NonFiniteError, match="draw 3"):
        ll.predict(
            surface, weights, rows, strategy=strategy, chunk=2 if strategy == "vmap" else None
        )


def test_a_draw_of_nan_weights_is_named():
    _, surface = small()
    weights = scattered(surface.layout, 5)
    weights[2, 4] = float("nan")
    with pytest.raises(ll.NonFiniteError, match=r"draw 2.*NaN"):
        ll.predict(surface, list(weights))


def test_the_model_and_the_random_state_are_unchanged():
    net = conv_bn()
    surface = ll.LossSurface(net, TASK, images())
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    p = surface.layout.size
    ll.predict(surface, ll.Gaussian(torch.zeros(p), torch.ones(p)), samples=3)
    assert same_tree(dict(net.state_dict()), before)
    assert net.training
    assert torch.equal(torch.get_rng_state(), state)


def test_predictions_are_saved_and_loaded(tmp_path):
    _, surface = small()
    pred = ll.predict(surface, scattered(surface.layout, 3))
    again = type(pred).load(pred.save(tmp_path / "pred.npz"))
    assert torch.equal(again.probs, pred.probs)
    assert again.metrics() == pred.metrics()


class Unaveraged(ll.LanguageModeling):
    """Raises where its probabilities are computed."""

    def statistics(self, output):
        raise AssertionError("a vocabulary of probabilities for every token")


def test_the_likelihood_alone_holds_no_vocabulary():
    net = TiedLM()
    rows = tokens()
    surface = ll.LossSurface(net, ll.LanguageModeling(), rows)
    bare = ll.LossSurface(net, Unaveraged(), rows)
    weights = scattered(surface.layout, 5)
    whole = ll.predict(surface, weights, keep="none")
    result = ll.predict(bare, weights, keep="nll")
    assert result.metrics() == {n: whole.metrics()[n] for n in ("nll", "perplexity")}
    assert torch.equal(result.nll_by_samples, whole.nll_by_samples)
    assert result.probs is None
    assert result.target_log_prob is None
    with pytest.raises(AssertionError, match="vocabulary"):
        ll.predict(bare, weights, keep="none")
    gaussian = ll.Gaussian(weights.mean(0), weights.var(0))
    ll.tune_scale(
        bare, gaussian, rows, scales=[0.0, 1.0], samples=2
    )  # nor does the choice of a scale


def test_the_likelihood_alone_of_other_tasks():
    _, surface = small()
    weights = scattered(surface.layout, 3)
    result = ll.predict(surface, weights, keep="nll").metrics()
    assert result == {"nll": ll.predict(surface, weights).metrics()["nll"]}
    data = targets()
    net = nn.Linear(data[0][0].shape[1], 2 * data[0][1].shape[1])
    surface = ll.LossSurface(net, ll.Regression(target_std=3.0), data)
    weights = scattered(surface.layout, 3)
    one, other = (ll.predict(surface, weights, keep=keep) for keep in ("nll", "probs"))
    assert one.metrics()["nll"] == other.metrics()["nll"]  # in the target's units
    assert torch.equal(one.nll_by_samples, other.nll_by_samples)


@pytest.mark.parametrize("name", ["target_mean", "target_std"])
def test_units_of_another_number_of_targets(name):
    task = ll.Regression(noise_variance=1.0, **{name: torch.ones(3)})
    surface = ll.LossSurface(nn.Linear(2, 1), task, [(torch.randn(4, 2), torch.randn(4, 1))])
    with pytest.raises(ll.DataError, match=f"{name} has 3 numbers, .* 1 targets"):
        ll.predict(surface, torch.zeros(3))


@pytest.mark.parametrize("strategy", ["points", "batches", "vmap"])
def test_an_ignored_label_beyond_the_classes(strategy):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, 3, generator=g), torch.tensor([0, 255, 3, 1, 255, 2])
    data = [(x, y)]
    surface = ll.LossSurface(nn.Linear(3, 4), ll.Classification(ignore_index=255), data)
    w = torch.randn(8, 16, generator=g)
    result = ll.predict(surface, w, strategy=strategy).metrics()
    rest = ll.LossSurface(nn.Linear(3, 4), ll.Classification(), [(x[y != 255], y[y != 255])])
    expected = ll.predict(rest, w).metrics()
    assert result == pytest.approx(expected, rel=1e-5)


def test_a_binary_label_cannot_be_ignored():
    data = [(torch.randn(4, 2), torch.tensor([0, 1, 1, 0]))]
    surface = ll.LossSurface(nn.Linear(2, 1), ll.Classification(ignore_index=0), data)
    with pytest.raises(ll.DataError, match="ignore_index=0 is one of the labels"):
        surface(torch.zeros(3))
