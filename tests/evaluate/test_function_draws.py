"""Functions of a posterior's draws, against forward passes of each network."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

import lowland as ll
from lowland.evaluate import regular_grid
from tests.models import TiedLM, blobs, mlp, targets, tokens

PLANS = [("points", 1), ("batches", 3), ("vmap", 4)]


def gaussian(surface, spread=0.3, seed=0):
    g = torch.Generator().manual_seed(seed)
    size = surface.layout.size
    return ll.Gaussian(torch.randn(size, generator=g), torch.full((size,), spread**2))


def by_hand(surface, weights, x):
    """(S, n, ...) float64 outputs, one network at a time."""
    net = surface.template.module.double().eval()
    states = [dict(surface.layout.unflatten(w.double()).items()) for w in weights]
    result = torch.stack([functional_call(net, state, (x.double(),)).detach() for state in states])
    net.float()
    return result


def small(classes=3):
    return ll.LossSurface(mlp(classes=classes), ll.Classification(), blobs(classes=classes))


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strategy", "chunk"), PLANS)
def test_classes(strategy, chunk):
    surface = small()
    post = gaussian(surface)
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(2))
    result = ll.functions(surface, post, x, samples=6, seed=5, strategy=strategy, chunk=chunk)
    weights = torch.stack([post.draw(i, seed=5) for i in range(6)])
    expected = by_hand(surface, weights, x).softmax(2)
    torch.testing.assert_close(result.draws.double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(result.mean.double(), expected.mean(0), atol=1e-5, rtol=0)
    assert result.variance is None
    assert result.task == "classification"
    assert torch.equal(result.inputs, x)
    assert result.data_inputs is result.data_targets is None
    # the average is that of predict
    pred = ll.predict(surface, post, [x], samples=6, seed=5)
    torch.testing.assert_close(result.mean, pred.probs, atol=1e-6, rtol=0)
    twin = by_hand(surface, weights, x).mean(0).softmax(1)  # averaged logits
    assert not torch.allclose(result.mean.double(), twin, atol=1e-2)


@pytest.mark.parametrize(("strategy", "chunk"), PLANS)
def test_regression_in_the_targets_units(strategy, chunk):
    task = ll.Regression(target_mean=5.0, target_std=3.0)
    batches = targets()
    surface = ll.LossSurface(mlp(4, 5, 2), task, batches)
    post = gaussian(surface)
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(2))
    data = (torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]))
    options = {"samples": 7, "strategy": strategy, "chunk": chunk}
    result = ll.functions(surface, post, x, data=data, **options)
    z = by_hand(surface, [post.draw(i) for i in range(7)], x)
    m, v = 3 * z[..., :1] + 5, 9 * (F.softplus(z[..., 1:]) + 1e-6)
    torch.testing.assert_close(result.draws, m, atol=1e-4, rtol=0)
    torch.testing.assert_close(result.mean, m.mean(0), atol=1e-4, rtol=0)
    total = v.mean(0) + m.var(0, correction=0)
    torch.testing.assert_close(result.variance, total, atol=1e-3, rtol=1e-4)
    assert not torch.allclose(result.variance, v.mean(0), rtol=0.05)  # the noise alone
    pred = ll.predict(surface, post, [x], samples=7)
    # strategies round differently in float32
    torch.testing.assert_close(result.mean, pred.mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(result.variance, pred.variance, rtol=1e-5, atol=0)
    torch.testing.assert_close(result.data_targets, 3 * data[1].double() + 5)
    assert torch.equal(result.data_inputs, data[0])


def test_two_classes_of_one_output():
    rows = [(x, (y > 0).long()) for x, y in blobs()]
    surface = ll.LossSurface(mlp(classes=1), ll.Classification(), rows)
    x = rows[0][0]
    weights = torch.randn(3, surface.layout.size, generator=torch.Generator().manual_seed(0))
    result = ll.functions(surface, weights, x)
    p = by_hand(surface, weights, x).sigmoid()
    torch.testing.assert_close(result.draws.double(), torch.cat([1 - p, p], 2), atol=1e-5, rtol=0)


def test_each_draw_has_its_own_batchnorm_statistics():
    rows = [(torch.randn(30, 2, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 2)]
    net = nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2))
    surface = ll.LossSurface(net, ll.Classification(), rows)
    post = gaussian(surface, 1.0)
    x = 3 * torch.randn(20, 2, generator=torch.Generator().manual_seed(1))
    result = ll.functions(surface, post, x, samples=3)
    for i in range(3):
        pred = ll.predict(surface, post.draw(i), [x])
        torch.testing.assert_close(result.draws[i], pred.probs, atol=1e-5, rtol=0)
    frozen = ll.functions(surface, post, x, samples=3, batchnorm="frozen")
    assert (result.batchnorm, frozen.batchnorm) == ("refresh", "frozen")
    assert not torch.allclose(frozen.draws, result.draws, atol=0.01)
    w = ll.ParamLayout(mlp()).flatten(mlp())
    assert ll.functions(small(), w, torch.ones(1, 6)).batchnorm == "none"


def test_how_many_draws():
    surface = small()
    x = torch.ones(2, 6)
    post = gaussian(surface)
    assert ll.functions(surface, post, x).draws.shape == (25, 2, 3)
    members = ll.Ensemble(torch.zeros(4, surface.layout.size))
    assert len(ll.functions(surface, members, x).draws) == 4
    assert len(ll.functions(surface, members, x, samples=2).draws) == 2
    few, more = (ll.functions(surface, post, x, samples=n).draws for n in (3, 5))
    torch.testing.assert_close(more[:3], few)
    assert not torch.equal(ll.functions(surface, post, x, seed=1, samples=3).draws, few)


def test_many_inputs_are_split_into_batches(monkeypatch):
    surface = small()
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(2))
    post = gaussian(surface)
    whole = ll.functions(surface, post, x, samples=4)
    module = sys.modules["lowland.evaluate.function_draws"]  # the room's name is the function's
    monkeypatch.setattr(module, "_BATCH", 7)
    parts = ll.functions(surface, post, x, samples=4, strategy="batches", chunk=3)
    torch.testing.assert_close(parts.draws, whole.draws)


def test_a_loader_of_another_form_does_not_matter():
    """Inputs go to the model unchanged, whatever the task's `unpack`."""

    def unpack(batch):
        return (batch["x"],), {}, batch["y"]

    rows = [{"x": x, "y": y} for x, y in blobs()]
    surface = ll.LossSurface(mlp(), ll.Classification(unpack=unpack), rows)
    w = surface.layout.flatten(mlp())
    x = blobs()[0][0]
    expected = ll.functions(small(), w, x).draws
    torch.testing.assert_close(ll.functions(surface, w, x).draws, expected)


# -- regular grids ---------------------------------------------------------------------------------


def test_the_grid_is_regular_around_the_inputs():
    rows = torch.tensor([[0.0, -1.0], [4.0, 1.0], [1.0, 0.0]])
    grid = regular_grid(rows, resolution=5, margin=0.25)
    assert grid.shape == (25, 2)
    assert grid[:, 0].unique().tolist() == [-1.0, 0.5, 2.0, 3.5, 5.0]
    assert grid[:, 1].unique().tolist() == [-1.5, -0.75, 0.0, 0.75, 1.5]
    assert len(grid.unique(dim=0)) == 25
    assert grid[1].tolist() == [0.5, -1.5]  # x varies first
    line = regular_grid(rows[:, :1], resolution=3, margin=0.0)
    assert line.tolist() == [[0.0], [2.0], [4.0]]
    assert regular_grid(rows.double(), resolution=2).dtype == torch.float64
    assert regular_grid(torch.zeros(3, 1).long(), resolution=3).tolist() == [[-1], [0], [1]]
    with pytest.raises(ll.DataError, match=r"inputs \(m, 1\) or \(m, 2\), got \(3, 3\)"):
        regular_grid(torch.zeros(3, 3))
    with pytest.raises(ll.ConfigError, match="resolution: expected a whole number"):
        regular_grid(rows, resolution=1)


# -- arguments -------------------------------------------------------------------------------------


def test_arguments_that_are_refused():
    surface = small()
    w = surface.layout.flatten(mlp())
    with pytest.raises(ll.DataError, match=r"inputs: expected a tensor \(n, d\), got \(6,\)"):
        ll.functions(surface, w, torch.ones(6))
    with pytest.raises(ll.DataError, match=r"inputs: .* got list"):
        ll.functions(surface, w, [[1.0] * 6])
    with pytest.raises(ll.DataError, match=r"data: expected \(inputs, targets\)"):
        ll.functions(surface, w, torch.ones(2, 6), data=torch.ones(2, 6))
    with pytest.raises(ll.DataError, match=r"data: expected inputs \(m, 6\).*\(3, 6\) and \(2,\)"):
        ll.functions(surface, w, torch.ones(2, 6), data=(torch.ones(3, 6), torch.ones(2)))
    with pytest.raises(ll.LayoutError, match="another model"):
        ll.functions(surface, w[1:], torch.ones(2, 6))
    net = torch.nn.Linear(2, 1, bias=False)
    rows = [(torch.ones(4, 2), torch.ones(4, 1))]
    line = ll.LossSurface(net, ll.Regression(noise_variance=1.0), rows)
    for wrong in (torch.ones(5, 3), torch.ones(5)):
        with pytest.raises(ll.DataError, match=r"data: expected targets \(m, 1\), got"):
            ll.functions(line, torch.ones(2), torch.ones(3, 2), data=(torch.ones(5, 2), wrong))
    labels = [(x, F.one_hot(y, 3).float().roll(1) + 0.0) for x, y in blobs()]
    labels[0][1][0] = 1.0  # two at once
    independent = ll.LossSurface(mlp(), ll.Classification(), labels)
    with pytest.raises(ll.ConfigError, match="independent labels"):
        ll.functions(independent, w, torch.ones(2, 6))
    language = ll.LossSurface(TiedLM(), ll.LanguageModeling(), tokens())
    with pytest.raises(ll.ConfigError, match="expected a Classification or Regression"):
        ll.functions(language, language.layout.flatten(TiedLM()), torch.ones(2, 6))
