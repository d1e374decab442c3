"""Regression of sequences and images: each position is an item, and nothing is broadcast."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal

import lowland as ll
from lowland.evaluate import LogLikelihood
from lowland.evaluate.mixture_components import components
from lowland.records import Predictive
from tests.models import generator


class Axis(nn.Module):
    """A linear map along one axis."""

    def __init__(self, inputs, outputs, axis):
        super().__init__()
        self.map = nn.Linear(inputs, outputs)
        self.axis = axis

    def forward(self, x):
        return self.map(x.movedim(self.axis, -1)).movedim(-1, self.axis)


#: name -> shape of targets, axis of D, target_dim to give
SHAPES = {
    "forecast": ((6, 5, 2), 2, None),
    "one number a step": ((6, 5, 1), 2, None),
    "image": ((6, 1, 4, 3), 1, None),
    "vector field": ((6, 2, 4, 3), 1, None),
    "channels last": ((6, 4, 3, 2), 3, -1),
    "conv1d": ((6, 2, 5), 1, 1),
    "square": ((6, 2, 2), 2, None),
}
EVERY = pytest.mark.parametrize("name", SHAPES)


def case(name, noise):
    shape, axis, dim = SHAPES[name]
    g = generator()
    d = shape[axis]
    inputs = list(shape)
    inputs[axis] = 3
    x, y = torch.randn(inputs, generator=g), torch.randn(shape, generator=g)
    torch.manual_seed(0)
    net = Axis(3, d if isinstance(noise, float) or noise == "learned" else 2 * d, axis)
    if noise == "learned":
        net = ll.GaussianHead(net, homoscedastic=True, target_dim=dim)
    options = {"target_mean": torch.arange(d) + 3.0, "target_std": torch.arange(d) + 2.0}
    task = ll.Regression(noise, target_dim=dim, **options)
    surface = ll.LossSurface(net, task, [(x[:4], y[:4]), (x[4:], y[4:])])
    weights = 0.3 * torch.randn(4, surface.layout.size, generator=g)
    return surface, weights, x, y


def by_position(values, axis):  # (N, ...) -> (positions, D)
    return values.movedim(axis, -1).reshape(-1, values.shape[axis])


def flat(name, noise):
    """The same as a regression of separate positions: the oracle."""
    surface, weights, x, y = case(name, noise)
    axis = SHAPES[name][1]
    rows = nn.Linear(3, y.shape[axis] * (2 if noise is None else 1))
    rows = ll.GaussianHead(rows, homoscedastic=True) if noise == "learned" else rows
    task = surface.task
    task = ll.Regression(noise, target_mean=task.target_mean, target_std=task.target_std)
    data = [(by_position(x, axis), by_position(y, axis))]
    return ll.LossSurface(rows, task, data), weights


@EVERY
@pytest.mark.parametrize("noise", [None, 0.3, "learned"])
def test_positions_as_separate_examples(name, noise):
    axis = SHAPES[name][1]
    surface, weights, *_ = case(name, noise)
    oracle, same = flat(name, noise)
    torch.testing.assert_close(surface(weights[0]), oracle(same[0]))
    torch.testing.assert_close(
        surface.value_and_grad(weights[0])[1], oracle.value_and_grad(same[0])[1]
    )
    for strategy in ("points", "batches", "vmap"):
        a, b = ll.predict(surface, weights, strategy=strategy), ll.predict(oracle, same)
        assert a.mean.shape == a.variance.shape == a.targets.shape == SHAPES[name][0]
        for field in ("mean", "variance", "targets"):
            torch.testing.assert_close(by_position(getattr(a, field), axis), getattr(b, field))
        torch.testing.assert_close(a.target_log_prob, b.target_log_prob)
        assert a.metrics() == pytest.approx(b.metrics(), rel=1e-5)
    assert ll.scores(a) == pytest.approx(ll.scores(b), rel=1e-5)
    assert ll.pool([a, a]).metrics()["nll"] == pytest.approx(a.metrics()["nll"], rel=1e-5)
    x, y = surface.evaluate(weights), oracle.evaluate(same)
    torch.testing.assert_close(x.nll, y.nll)
    torch.testing.assert_close(x.rmse, y.rmse)
    torch.testing.assert_close(LogLikelihood(surface)(weights), LogLikelihood(oracle)(same))
    line, path = ll.Line(*weights[:2]), ll.Line(*same[:2])
    x, y = ll.path(line, surface, points=3), ll.path(path, oracle, points=3)
    torch.testing.assert_close(x.loss, y.loss)
    m, v = components(surface, weights)
    n, w = components(oracle, same)
    crps = ll.crps(a.targets, m, v)
    torch.testing.assert_close(by_position(crps, axis), ll.crps(b.targets, n, w))


@EVERY
def test_against_torch(name):
    shape, axis, dim = SHAPES[name]
    output, target = torch.randn(shape), torch.randn(shape)
    task = ll.Regression(0.3, target_dim=dim)
    expected = -Normal(output, math.sqrt(0.3)).log_prob(target).sum(axis).reshape(-1)
    torch.testing.assert_close(task.nll(output, target), expected)
    assert task.count((output, target)) == len(expected)
    raw = torch.randn(shape)
    both = torch.cat([output, raw], axis)
    normal = Normal(output, (F.softplus(raw) + 1e-6).sqrt())
    expected = -normal.log_prob(target).sum(axis).reshape(-1)
    torch.testing.assert_close(ll.Regression(target_dim=dim).nll(both, target), expected)


@pytest.mark.parametrize(
    ("output", "target"),
    [
        ((6, 5, 2), (6, 5)),
        ((6, 5, 1), (6, 5)),
        ((6, 5, 1), (6, 1, 5)),
        ((6, 5, 2), (6, 1, 2)),
        ((6, 5, 2), (1, 5, 2)),
        ((6, 1, 4, 3), (6, 4, 3)),
        ((6, 1, 4, 3), (6, 1, 1, 3)),
        ((6, 1, 4, 3), (6, 4, 3, 1)),
        ((6, 5), (6, 5, 1)),
    ],
)
def test_nothing_is_broadcast(output, target):
    for noise, shape in ((1.0, output), ("learned", output)):
        with pytest.raises(ll.DataError, match=r"expected (targets|2 outputs)"):
            ll.Regression(noise).nll(torch.ones(shape), torch.zeros(target))


def test_variances_on_another_axis():
    hint = r"means and variances seem to lie on axis 1: say target_dim=1"
    with pytest.raises(ll.DataError, match=hint):
        ll.Regression().nll(torch.zeros(6, 2, 4), torch.zeros(6, 1, 4))
    with pytest.raises(ll.DataError, match=r"axis 3: say target_dim=3"):
        ll.Regression().nll(torch.zeros(6, 4, 3, 2), torch.zeros(6, 4, 3, 1))
    with pytest.raises(ll.DataError, match=r"on axis 2, got \(6, 2, 5\).*target_dim"):
        ll.Regression().nll(torch.zeros(6, 2, 5), torch.zeros(6, 1, 5))
    for wrong in (0, "time", 1.5):
        with pytest.raises(ll.ConfigError, match="target_dim: expected"):
            ll.Regression(target_dim=wrong)
    with pytest.raises(ll.DataError, match=r"target_dim=3: outputs .* no such axis"):
        ll.Regression(1.0, target_dim=3).nll(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))


def test_forecasts_of_several_lengths():
    g = generator()
    rows = [(torch.randn(3, t, 2, generator=g), torch.randn(3, t, 1, generator=g)) for t in (4, 7)]
    net = nn.Linear(2, 2)
    surface = ll.LossSurface(net, ll.Regression(target_std=2.0), rows)
    weights = torch.randn(3, 6, generator=g)
    pred = ll.predict(surface, weights)
    assert pred.mean.shape == pred.targets.shape == (33, 1)
    joined = [
        tuple(torch.cat([row[i].reshape(-1, row[i].shape[-1]) for row in rows]) for i in (0, 1))
    ]
    oracle = ll.predict(ll.LossSurface(net, ll.Regression(target_std=2.0), joined), weights)
    assert pred.metrics() == pytest.approx(oracle.metrics(), rel=1e-5)
    assert ll.scores(pred) == pytest.approx(ll.scores(oracle), rel=1e-5)


def test_other_functions_of_sequence_predictions(tmp_path):
    surface, weights, *_ = case("image", None)
    pred = ll.predict(surface, weights)
    loaded = Predictive.load(pred.save(tmp_path / "p.json"))
    assert ll.scores(loaded) == pytest.approx(ll.scores(pred), rel=1e-5)
    assert bool((ll.ood(pred, loaded).auroc == 0.5).all())
    within = ((pred.targets - pred.mean) ** 2 <= 4 * pred.variance).double().mean()
    assert f"within ± 2 sd ({within:.0%})" in pred.plot().get_legend_handles_labels()[1]
    rows = [(torch.ones(2, 1), torch.ones(2, 5, 1))]
    sequences = ll.LossSurface(Sequence(), ll.Regression(1.0), rows)
    with pytest.raises(ll.ConfigError, match=r"functions: .*ll.predict"):
        ll.functions(sequences, torch.ones(1, 1), torch.ones(3, 1))


class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.slope * x[:, None].expand(-1, 5, 1)


class Halved(ll.Task):
    """Two items a row, and nothing that says so."""

    def nll(self, output, target):
        return (output - target).square().reshape(-1)


class Counted(Halved):
    def items(self, target):
        return target.numel()


def test_items_of_a_custom_task_are_counted():
    data = [(torch.ones(4, 3), torch.zeros(4, 2))]
    net = nn.Linear(3, 2)
    surface = ll.LossSurface(net, Halved(), data)
    w = surface.layout.flatten(net)
    with pytest.raises(ll.DataError, match="expected 4 items, one an example, got 8"):
        surface(w)
    surface = ll.LossSurface(net, Counted(), data)
    assert float(surface(w)) == pytest.approx(ll.predict(surface, w).metrics()["nll"])
