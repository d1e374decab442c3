"""Monte Carlo dropout against closed forms of linear networks, and loops by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lowland as ll
from lowland.uncertainty.dropout import has_dropout
from tests.models import Case, every_case, images

P = 0.3
RANDOM = {"conv_dropout", "transformer"}  # the cases with dropout


def linear(examples=6, width=5):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(examples, width, generator=g), torch.randn(examples, 1, generator=g)
    net = nn.Sequential(nn.Dropout(P), nn.Linear(width, 1))
    surface = ll.LossSurface(net, ll.Regression(noise_variance=0.25), [(x, y)])
    w = torch.randn(surface.layout.size, generator=g)
    return surface, w, x


def test_mean_and_variance_of_a_linear_network():
    """E = w·x + b and Var = p / (1 - p) Σ w² x² + noise: dropout scales what it keeps."""
    surface, w, x = linear()
    samples = 1500
    pred = ll.mc_dropout(surface, w, samples=samples)
    weight, bias = w[:-1], w[-1]
    variance = P / (1 - P) * (weight**2 * x**2).sum(1, keepdim=True).double()
    error = 4 * (variance / samples).sqrt()
    assert bool(((pred.mean - (x @ weight + bias)[:, None]).abs() < error).all())
    torch.testing.assert_close(pred.variance, variance + 0.25, rtol=0.15, atol=0)
    assert pred.samples == samples


def test_every_pass_is_a_forward_pass_in_training_mode():
    surface, w, x = linear()
    pred = ll.mc_dropout(surface, w, samples=3, seed=5)
    one = [ll.mc_dropout(surface, w, samples=n, seed=5).mean * n for n in (1, 2, 3)]
    passes = [one[0], one[1] - one[0], one[2] - one[1]]
    weight, bias = w[:-1], w[-1]
    for output in passes:
        # each example keeps a subset of its terms, scaled by 1 / (1 - p): all are tried
        masks = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 5)
        every = (masks[:, None] * x / (1 - P)) @ weight + bias  # (32, examples)
        assert bool(((every - output[:, 0]).abs().min(0).values < 1e-5).all())
    assert pred.nll_by_samples.shape == (3,)


def test_masks_are_a_function_of_the_seed():
    surface, w, _ = linear()
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = ll.mc_dropout(surface, w, samples=4, seed=2)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(77)
    assert torch.equal(first.mean, ll.mc_dropout(surface, w, samples=4, seed=2).mean)
    assert not torch.equal(first.mean, ll.mc_dropout(surface, w, samples=4, seed=3).mean)


class Functional(nn.Module):
    """Dropout that is no layer, beside BatchNorm."""

    def __init__(self, p=0.5):
        super().__init__()
        self.p = p
        self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        hidden = self.norm(self.conv(x)).relu().mean((2, 3))
        return self.head(F.dropout(hidden, self.p, self.training))


class Attending(nn.Module):
    """In evaluation mode torch's fast path skips its dropout layers, whatever their mode."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.layer(x).mean(1))


def test_dropout_that_is_no_layer_is_detected():
    data = images()
    for net, expected in ((Functional(), True), (Functional(0.0), False)):
        surface = ll.LossSurface(net, ll.Classification(), data)
        assert has_dropout(surface, surface.layout.flatten(net)) is expected
    data = [(torch.randn(4, 5, 8), torch.zeros(4).long())]
    net = Attending()
    surface = ll.LossSurface(net, ll.Classification(), data)
    w = surface.layout.flatten(net)
    assert has_dropout(surface, w)
    # the broken twin: dropout layers alone in training mode
    twin = Attending().eval()
    twin.load_state_dict(net.state_dict())
    for module in twin.modules():
        if isinstance(module, nn.Dropout):
            module.training = True
    with torch.no_grad():
        assert torch.equal(twin(data[0][0]), twin(data[0][0])), "torch has fixed its fast path"


def test_batchnorm_uses_its_statistics():
    """Masks aside, a prediction does not depend on the other examples of its batch."""
    data = images()
    net = Functional(1e-12)  # dropout that drops nothing
    surface = ll.LossSurface(net, ll.Classification(), data)
    w = surface.layout.flatten(net)
    frozen = surface.point(w)
    for batchnorm in ("refresh", "frozen"):
        buffers = surface.buffers_for(frozen, ll.EvalOptions(batchnorm=batchnorm))
        parameters = surface.layout.materialise(w)
        one = [surface.forward(parameters, buffers, (x,), {}, mode="dropout") for x, _ in data]
        evaluated = [surface.forward(parameters, buffers, (x,), {}) for x, _ in data]
        torch.testing.assert_close(one, evaluated)
        trained = [surface.forward(parameters, buffers, (x,), {}, mode="train") for x, _ in data]
        assert not torch.allclose(torch.cat(trained), torch.cat(one), atol=1e-3)
    buffers = surface.buffers_for(frozen)
    assert torch.equal(surface.template.buffers["norm.running_mean"], torch.zeros(4))


def test_layers_that_a_user_froze_stay_frozen():
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 1))
    net[0].eval()
    data = [(torch.ones(4, 5), torch.zeros(4, 1))]
    surface = ll.LossSurface(net, ll.Regression(noise_variance=1.0), data)
    with pytest.raises(ll.ConfigError, match="has no dropout"):
        ll.mc_dropout(surface, torch.ones(6))


def test_other_loaders_and_examples_without_targets():
    surface, w, x = linear()
    pred = ll.mc_dropout(surface, w, [x[:4], x[4:]], samples=2)
    assert pred.metrics() == {}
    assert pred.mean.shape == (6, 1)
    calls = []
    ll.mc_dropout(surface, w, samples=2, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    with pytest.raises(ll.ConfigError, match="at least 1"):
        ll.mc_dropout(surface, w, samples=0)


@every_case
def test_passes_leave_running_statistics_unchanged(case: Case):
    """Those of layers that are no BatchNorm once moved to the predicted examples'."""
    surface, point = case.surface(), case.surface().point(case.model())
    assert has_dropout(surface, point) == (case.name in RANDOM)
    if case.name in RANDOM:
        return
    parameters = surface.layout.materialise(point.weights)
    buffers = surface.buffers_for(point, ll.EvalOptions(batchnorm="frozen"))
    for batch in case.batches():
        args, kwargs, _ = surface.task.parts(batch)
        with torch.no_grad():
            output = surface.forward(parameters, buffers, args, kwargs, mode="dropout")
            expected = surface.forward(parameters, buffers, args, kwargs)
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
