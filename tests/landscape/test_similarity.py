"""Cosines, distances and disagreements against matrices by hand."""

import pytest
import torch
from torch import nn

import lowland as ll
from tests.landscape.surfaces import STRATEGIES, bowl, ends, network
from tests.models import TiedLM, blobs, images, mlp, tokens


def small(n=5, scale=0.5):
    torch.manual_seed(0)
    net = mlp()
    surface = ll.LossSurface(net, ll.Classification(), blobs())
    w = surface.layout.flatten(net)
    g = torch.Generator().manual_seed(2)
    return surface, w + scale * torch.randn(n, len(w), generator=g)


def classes(surface, w, batches, batchnorm="refresh"):
    """Predicted classes by the user's own loop."""
    model = surface.template.module
    parameters = {
        **surface.layout.materialise(w),
        **surface.buffers_for(ll.Point(w), ll.EvalOptions(batchnorm=batchnorm)),
    }
    model.eval()
    with torch.no_grad():
        return torch.cat(
            [torch.func.functional_call(model, parameters, (x,)).argmax(1) for x, _ in batches]
        )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_matrices_by_hand(strategy):
    surface, weights = small()
    result = ll.similarity(surface, weights, strategy=strategy, chunk=2)
    wide = weights.double()
    unit = wide / wide.norm(dim=1, keepdim=True)
    torch.testing.assert_close(result.cosine, unit @ unit.T)
    torch.testing.assert_close(result.distance, (wide[:, None] - wide).norm(dim=2))
    predictions = torch.stack([classes(surface, w, blobs()) for w in weights])
    expected = (predictions[:, None] != predictions).double().mean(2)
    torch.testing.assert_close(result.disagreement, expected)
    assert expected.max() > 0.2
    assert result.examples == 21
    assert result.names is None


def test_seen_from_the_initialisation():
    surface, weights = small()
    origin = weights[0] + 1
    result = ll.similarity(surface, weights, origin=origin)
    wide = weights.double() - origin.double()
    unit = wide / wide.norm(dim=1, keepdim=True)
    torch.testing.assert_close(result.cosine, unit @ unit.T, rtol=1e-6, atol=1e-6)
    plain = ll.similarity(surface, weights)
    assert not torch.allclose(result.cosine, plain.cosine, atol=0.1)
    torch.testing.assert_close(result.distance, plain.distance)


def test_near_vectors_are_told_apart():
    """Distances of float32 weights a millionth apart; by squares of norms nothing is left."""
    surface, weights = small(1)
    step = torch.zeros_like(weights[0])
    step[0] = 2**-20
    near = torch.stack([weights[0].round(decimals=2), weights[0].round(decimals=2) + step])
    apart = float((near[1].double() - near[0].double()).norm())
    result = ll.similarity(surface, near)
    assert result.distance[0, 1].item() == pytest.approx(apart, rel=1e-6)
    assert result.distance.diagonal().tolist() == [0, 0]
    a, b = near
    twin = (a @ a + b @ b - 2 * a @ b).clamp_min(0).sqrt()
    assert abs(float(twin) / apart - 1) > 0.5


def test_statistics_are_of_each_vector():
    net = network()
    surface = ll.LossSurface(net, ll.Classification(), images())
    w = surface.layout.flatten(net)
    weights = torch.stack([w, 0.1 * w, w.roll(3)])
    for batchnorm in ("refresh", "frozen"):
        result = ll.similarity(surface, weights, batchnorm=batchnorm).disagreement
        predictions = torch.stack([classes(surface, each, images(), batchnorm) for each in weights])
        torch.testing.assert_close(result, (predictions[:, None] != predictions).double().mean(2))
    other = ll.similarity(surface, weights).disagreement
    assert not torch.equal(result, other)


def test_what_may_be_compared(tmp_path):
    surface, weights = small(3)
    expected = ll.similarity(surface, weights)
    trajectory = ll.Trajectory.create(tmp_path / "run", surface.layout)
    for step, w in enumerate(weights):
        trajectory.append(surface.layout.load_(mlp(), w), step=step)
    names = ["SGD", "SWA", "other"]
    for argument in (
        list(weights),
        iter(weights),
        ll.Ensemble(weights),
        [ll.Point(w) for w in weights],
        trajectory,
        trajectory.ensemble(),
        dict(zip(names, weights, strict=True)),
    ):
        result = ll.similarity(surface, argument)
        torch.testing.assert_close(result.cosine, expected.cosine)
        torch.testing.assert_close(result.disagreement, expected.disagreement)
        assert result.names == (names if isinstance(argument, dict) else None)


def test_rows_without_targets_and_rows_that_do_not_count():
    surface, weights = small(3)
    expected = ll.similarity(surface, weights).disagreement
    result = ll.similarity(surface, weights, loader=[x for x, _ in blobs()])
    torch.testing.assert_close(result.disagreement, expected)
    hidden = [(x, torch.where(torch.arange(len(y)) == 0, -100, y)) for x, y in blobs()]
    result = ll.similarity(surface, weights, loader=hidden).disagreement
    predictions = torch.stack(
        [classes(surface, w, [(x[1:], 0) for x, _ in blobs()]) for w in weights]
    )
    torch.testing.assert_close(result, (predictions[:, None] != predictions).double().mean(2))


def test_labels_that_do_not_exclude_one_another():
    rows = [(torch.eye(2), torch.tensor([[1.0, 1.0], [0.0, 1.0]]))]
    surface = ll.LossSurface(nn.Linear(2, 2, bias=False), ll.Classification(), rows)
    weights = torch.tensor([[1.0, 1, 1, 1], [1.0, 1, 1, -1]])  # one of four labels differs
    assert ll.similarity(surface, weights).disagreement[0, 1] == 0.25
    binary = ll.LossSurface(
        nn.Linear(2, 1, bias=False), ll.Classification(), [(torch.eye(2), torch.tensor([0, 1]))]
    )
    result = ll.similarity(binary, torch.tensor([[1.0, 1.0], [1.0, -1.0]])).disagreement
    assert result[0, 1] == 0.5


def test_tokens_are_what_a_language_model_disagrees_about():
    surface = ll.LossSurface(TiedLM(), ll.LanguageModeling(), tokens())
    w = surface.layout.flatten(TiedLM())
    result = ll.similarity(surface, torch.stack([w, w, w.roll(7)])).disagreement
    assert result[0, 1] == 0
    assert 0 < result[0, 2] <= 1


def test_regressions_have_argumentalone():
    surface, _ = bowl()
    result = ll.similarity(surface, torch.stack(ends()))
    assert result.disagreement is None
    assert result.cosine.shape == (2, 2)


def test_what_cannot_be_compared_is_reported():
    surface, weights = small(2)
    with pytest.raises(ll.ConfigError, match="at least 2 vectors to compare, got 1"):
        ll.similarity(surface, weights[:1])
    with pytest.raises(ll.ConfigError, match="at least 2 vectors to compare, got 1"):
        ll.similarity(surface, weights[0])
    with pytest.raises(ll.ConfigError, match="vector 1 is the origin"):
        ll.similarity(surface, weights, origin=weights[1])
    with pytest.raises(ll.ConfigError, match="vector SWA is the origin"):
        ll.similarity(surface, {"SGD": weights[0], "SWA": torch.zeros_like(weights[0])})
    with pytest.raises(ll.LayoutError, match="another model"):
        ll.similarity(surface, [weights[0], torch.zeros(3)])
    with pytest.raises(ll.LayoutError, match="another model"):
        ll.similarity(surface, weights, origin=torch.zeros(3))
    for task in (surface, bowl()[0]):  # with predictions, and without
        bad = torch.full((task.layout.size,), float("nan"))
        with pytest.raises(ll.NonFiniteError, match="those of vector 1 hold NaN"):
            ll.similarity(task, [torch.ones_like(bad), bad])
    with pytest.raises(ll.ConfigError, match=r"draw some.*post\.sample"):
        ll.similarity(surface, ll.Gaussian(weights[0], torch.ones_like(weights[0])))
    with pytest.raises(ll.DataError, match=r"expected .*iterable"):
        ll.similarity(surface, 3)
