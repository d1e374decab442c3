"""Paths against closed forms, against the surface point by point, and by every strategy."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import lowland as ll
from tests.landscape.surfaces import FEATURES, STRATEGIES, bowl, ends, normed
from tests.models import Case, every_case, mlp, targets


def curves(w0, w1, *more):
    """The three kinds, with bends off the chord, and their weights in float64 by hand."""
    a, b, c = (w.double() for w in (w0, w1, *(more or [w0.flip(0) - 2 * w1])))

    def line(t):
        return (1 - t) * a + t * b

    def bezier(t):
        return (1 - t) ** 2 * a + 2 * t * (1 - t) * c + t**2 * b

    def chain(t):
        return torch.where(t < 0.5, (1 - 2 * t) * a + 2 * t * c, (2 - 2 * t) * c + (2 * t - 1) * b)

    bent = torch.stack([w0, c.to(w0.dtype), w1])
    return {
        "line": (ll.Line(w0, w1), line),
        "bezier": (ll.Bezier.between(w0, w1).with_anchors(bent), bezier),
        "chain": (ll.PolyChain.between(w0, w1).with_anchors(bent), chain),
    }


@pytest.mark.parametrize("kind", ["line", "bezier", "chain"])
def test_a_quadratic_surface_in_closed_form(kind):
    surface, loss = bowl()
    curve, by_hand = curves(*ends())[kind]
    result = ll.path(curve, surface, points=41)
    w = by_hand(result.t[:, None])
    torch.testing.assert_close(result.loss, loss(w), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(result.l2, w.norm(dim=1))
    torch.testing.assert_close(result.distance, (w - w[0]).norm(dim=1))
    assert result.distance[0] == 0
    fine = by_hand(torch.linspace(0, 1, 20001, dtype=torch.float64)[:, None])
    steps = torch.cat([torch.zeros(1), (fine[1:] - fine[:-1]).norm(dim=1).cumsum(0)])
    torch.testing.assert_close(result.length, steps[::500], rtol=1e-6, atol=1e-6)
    assert result.length[-1].item() == pytest.approx(curve.length())
    assert result.t.tolist() == pytest.approx(np.linspace(0, 1, 41))
    assert result.error.isnan().all()  # a regression has none
    assert (result.examples, result.outside, result.batchnorm) == (21, False, "none")
    if kind == "line":  # a bowl has no barrier
        assert result.barrier == 0


def test_length_of_a_chain_is_exact_between_its_knots():
    """With knots at thirds no point falls on them: a rule that looked at points alone is wrong."""
    surface, _ = bowl()
    anchors = torch.randn(4, FEATURES, generator=torch.Generator().manual_seed(1))
    chain = ll.PolyChain.between(anchors[0], anchors[3], bends=2).with_anchors(anchors)
    result = ll.path(chain, surface, t=[0.0, 0.25, 0.5, 1.0])
    pieces = (anchors[1:] - anchors[:-1]).double().norm(dim=1)
    expected = torch.tensor([0.0, 0.75 * pieces[0], pieces[0] + 0.5 * pieces[1], pieces.sum()])
    torch.testing.assert_close(result.length, expected.double(), rtol=1e-6, atol=0)
    chords = (chain([0.0, 0.25, 0.5]).diff(dim=0)).double().norm(dim=1).sum()
    assert abs(float(chords - result.length[2])) > 1e-2  # the broken twin


@every_case
def test_every_point_is_the_surface_there(case: Case):
    model = case.model()
    surface = case.surface(model)
    w0 = surface.layout.flatten(model)
    g = torch.Generator().manual_seed(1)
    w1 = w0 + 0.3 * torch.randn(w0.shape, generator=g, dtype=w0.dtype)
    bend = ll.Bezier.between(w0, w1).with_anchors(torch.stack([w0, 0.5 * w0, w1]))
    expected = [float(surface(w)) for w in bend.points([0.0, 0.25, 0.5, 0.75, 1.0])]
    tolerance = 2e-2 if case.name == "mixed" else 1e-5  # bfloat16 rounds at other places
    for strategy in (None, *STRATEGIES):
        if strategy == "vmap" and not case.maps:
            continue
        with warnings.catch_warnings():
            if case.unbatched:
                warnings.filterwarnings("ignore", ".*batching rule")
            result = ll.path(bend, surface, points=5, strategy=strategy, chunk=2)
        assert result.loss.tolist() == pytest.approx(expected, rel=tolerance)
        assert result.loss[0].item() == pytest.approx(float(surface(w0)), rel=tolerance)
        assert result.loss[-1].item() == pytest.approx(float(surface(w1)), rel=tolerance)


def test_frozen_statistics_are_those_of_the_model():
    surface, line = normed()
    result = ll.path(line, surface, points=3, batchnorm="frozen")
    expected = [float(surface(w, batchnorm="frozen")) for w in line.points(result.t)]
    assert result.loss.tolist() == pytest.approx(expected, rel=1e-5)
    assert result.batchnorm == "frozen"
    assert not torch.allclose(result.loss, ll.path(line, surface, points=3).loss, rtol=1e-2)


@pytest.mark.parametrize("kind", [ll.Line, ll.Bezier, ll.PolyChain])
def test_a_curve_knows_that_its_ends_had_statistics(kind, tmp_path):
    surface, line = normed()
    w0, w1 = line.anchors
    curve = kind.between(ll.Point(w0, surface.refresh(w0)), w1)
    curve.save(tmp_path / "curve.safetensors")
    other = curve.with_anchors(2 * curve.anchors).to("cpu")
    for one in (curve, other, ll.Shape.load(tmp_path / "curve.safetensors")):
        with pytest.raises(ll.ConfigError, match=f"that the {kind.__name__} was made of"):
            ll.path(one, surface, points=2, batchnorm="frozen")
        assert ll.path(one, surface, points=2).loss.isfinite().all()
    for bare in (kind.between(ll.Point(w0), w1), kind.between(w0, w1)):
        assert ll.path(bare, surface, points=2, batchnorm="frozen").loss.isfinite().all()


def test_regressions_have_an_rmse_and_no_error():
    surface, loss = bowl()
    w0, w1 = ends()
    test = targets((5,), features=FEATURES)
    result = ll.path(ll.Line(w0, w1), surface, points=3, loader=test)
    mse = 2 * (loss(ll.Line(w0, w1)(result.t).double()) - 0.5 * math.log(2 * math.pi))
    torch.testing.assert_close(result.metrics["rmse"], mse.sqrt(), rtol=1e-5, atol=1e-6)
    assert result.test_error.isnan().all()
    assert result.test_loss.isfinite().all()
    assert "test_rmse" in result.metrics


def test_coordinates_of_your_own_extend_the_curve():
    surface, loss = bowl()
    curve, by_hand = curves(*ends())["bezier"]
    t = torch.tensor([-0.5, 0.0, 0.3, 1.0, 1.25], dtype=torch.float64)
    for coordinates in (t, t.tolist(), t[:, None], t.numpy()):
        result = ll.path(curve, surface, t=coordinates)
        torch.testing.assert_close(result.loss, loss(by_hand(t[:, None])), rtol=1e-5, atol=1e-6)
    assert result.outside
    assert result.length[0] < 0 == result.length[1] < result.length[4]
    assert not ll.path(curve, surface, t=[0.0, 0.5]).outside


def test_what_is_not_finite_stays_and_nothing_finite_is_an_error():
    examples = [(torch.ones(2, 1), torch.zeros(2, 1))]
    surface = ll.LossSurface(nn.Linear(1, 1), ll.Regression(noise_variance=1.0), examples)
    far = torch.tensor([3e38, 3e38])
    result = ll.path(ll.Line(torch.zeros(2), far), surface, points=3)
    assert result.loss.isfinite().tolist() == [True, False, False]
    assert not math.isfinite(result.barrier)
    with pytest.raises(ll.NonFiniteError, match="NaN or infinite at all 2 points"):
        ll.path(ll.Line(far, 0.9 * far), surface, points=2)
    net = mlp()
    surface = ll.LossSurface(net, ll.Classification(), [(torch.ones(4, 6), torch.zeros(4).long())])
    w = surface.layout.flatten(net)
    result = ll.path(ll.Line(w, torch.full_like(w, 3e38)), surface, points=3)
    assert result.loss[[0, -1]].isnan().tolist() == [False, True]
    assert result.error[[0, -1]].isnan().tolist() == [False, True]


def test_progress_counts_points():
    surface, _ = bowl()
    seen = []
    ll.path(ll.Line(*ends()), surface, points=5, strategy="batches", chunk=2,
            progress=lambda done, total: seen.append((done, total)))  # fmt: skip
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]


def test_wrong_arguments_raise():
    surface, _ = bowl()
    line = ll.Line(*ends())
    with pytest.raises(ll.ConfigError, match=r"got Plane; ll\.scan"):
        ll.path(ll.Plane.through(*ends(n=3)), surface)
    with pytest.raises(ll.ConfigError, match=r"points: expected a whole number .* got 1"):
        ll.path(line, surface, points=1)
    for t in ([0.5], [0.5, 0.2], [0.0, math.nan], [0.0, 0.0]):
        with pytest.raises(ll.ConfigError, match=r"t: expected at least 2 .* rising"):
            ll.path(line, surface, t=t)
    with pytest.raises(ll.LayoutError, match="another model"):
        ll.path(ll.Line(*ends(size=5)), surface)
    with pytest.raises(ll.ConfigError, match="batchnorm"):
        ll.path(normed()[1], normed()[0], batchnorm="none")


def test_the_record_goes_to_disk_and_is_drawn(tmp_path):
    surface, _ = bowl()
    result = ll.path(ll.Line(*ends()), surface, points=5)
    back = type(result).load(result.save(tmp_path / "path.json"))
    assert back.loss.tolist() == result.loss.tolist()
    assert result.plot().get_ylabel() == "loss (nats)"


def test_a_barrier_is_between_the_ends_even_where_the_path_goes_on():
    t = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])
    result = ll.records.PathResult(
        t, torch.tensor([9.0, 1.0, 3.0, 2.0, 9.0]), *[torch.zeros(5)] * 4
    )
    assert result.barrier == 1.5
