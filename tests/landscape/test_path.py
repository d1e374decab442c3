"""Paths against closed forms, against the surface point by point, and by every strategy."""

import math
import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn

import lowland as ll
from lowland.core.data import Rows
from lowland.errors import ConfigError
from tests.models import CASES, Case, conv_bn, every_case, images, mlp, targets

STRATEGIES = ("points", "batches", "vmap")
FEATURES = 4


def bowl():
    """A linear model without bias, of unit noise: L is exactly quadratic; and L in float64."""
    rows = targets(features=FEATURES)
    surface = ll.LossSurface(
        nn.Linear(FEATURES, 1, bias=False), ll.Regression(noise_variance=1.0), rows
    )
    x = torch.cat([x for x, _ in rows]).double()
    y = torch.cat([y for _, y in rows]).double()

    def loss(w):  # (n, P) float64 -> (n,)
        return 0.5 * math.log(2 * math.pi) + 0.5 * ((x @ w.T - y) ** 2).mean(0)

    return surface, loss


def ends(size=FEATURES, n=2, scale=1.0):
    g = torch.Generator().manual_seed(3)
    return list(scale * torch.randn(n, size, generator=g))


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
    found = ll.path(curve, surface, points=41)
    w = by_hand(found.t[:, None])
    torch.testing.assert_close(found.loss, loss(w), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.l2, w.norm(dim=1))
    torch.testing.assert_close(found.distance, (w - w[0]).norm(dim=1))
    assert found.distance[0] == 0
    fine = by_hand(torch.linspace(0, 1, 20001, dtype=torch.float64)[:, None])
    steps = torch.cat([torch.zeros(1), (fine[1:] - fine[:-1]).norm(dim=1).cumsum(0)])
    torch.testing.assert_close(found.length, steps[::500], rtol=1e-6, atol=1e-6)
    assert found.length[-1].item() == pytest.approx(curve.length())
    assert found.t.tolist() == pytest.approx(np.linspace(0, 1, 41))
    assert found.error.isnan().all()  # a regression has none
    assert (found.rows, found.outside, found.batchnorm) == (21, False, "none")
    if kind == "line":  # a bowl has no barrier
        assert found.barrier == 0


def test_length_of_a_chain_is_exact_between_its_knots():
    """With knots at thirds no point falls on them: a rule that looked at points alone is wrong."""
    surface, _ = bowl()
    anchors = torch.randn(4, FEATURES, generator=torch.Generator().manual_seed(1))
    chain = ll.PolyChain.between(anchors[0], anchors[3], bends=2).with_anchors(anchors)
    found = ll.path(chain, surface, t=[0.0, 0.25, 0.5, 1.0])
    pieces = (anchors[1:] - anchors[:-1]).double().norm(dim=1)
    expected = torch.tensor([0.0, 0.75 * pieces[0], pieces[0] + 0.5 * pieces[1], pieces.sum()])
    torch.testing.assert_close(found.length, expected.double(), rtol=1e-6, atol=0)
    chords = (chain([0.0, 0.25, 0.5]).diff(dim=0)).double().norm(dim=1).sum()
    assert abs(float(chords - found.length[2])) > 1e-2  # the broken twin


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
        with warnings.catch_warnings():
            if case.unbatched:
                warnings.filterwarnings("ignore", ".*batching rule")
            found = ll.path(bend, surface, points=5, strategy=strategy, chunk=2)
        assert found.loss.tolist() == pytest.approx(expected, rel=tolerance)
        assert found.loss[0].item() == pytest.approx(float(surface(w0)), rel=tolerance)
        assert found.loss[-1].item() == pytest.approx(float(surface(w1)), rel=tolerance)


def network():
    torch.manual_seed(0)
    return conv_bn()


def normed():
    net = network()
    surface = ll.LossSurface(net, ll.Classification(), images())
    w0 = surface.layout.flatten(net)
    return surface, ll.Line(w0, w0.roll(1))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_test_rows_are_seen_with_the_statistics_of_the_surface(strategy):
    surface, line = normed()
    test = [(x**3 + x.roll(1, 1), y) for x, y in images((6, 7))]
    found = ll.path(line, surface, points=5, loader=test, strategy=strategy, chunk=2)
    for i, w in enumerate(line.points(found.t)):
        own, other = surface.evaluate(w), surface.evaluate(w, test)
        assert found.loss[i].item() == pytest.approx(own.loss.item(), rel=1e-5)
        assert found.error[i].item() == pytest.approx(own.error.item())
        assert found.test_loss[i].item() == pytest.approx(other.loss.item(), rel=1e-5)
        assert found.test_error[i].item() == pytest.approx(other.error.item())
        assert found.figures["ece"][i].item() == pytest.approx(own.ece.item(), abs=1e-5)
        assert found.figures["test_ece"][i].item() == pytest.approx(other.ece.item(), abs=1e-5)
    own = {"nll", "ece", "brier"}
    assert set(found.figures) == own | {f"test_{name}" for name in own}
    assert found.rows == 21
    # the broken twin: statistics of the test rows themselves
    twin = ll.LossSurface(network(), ll.Classification(), test)
    assert abs(float(twin(line(0.5))) - float(found.test_loss[2])) > 1e-3


def test_statistics_are_estimated_once_a_point_and_rows_are_read_once(monkeypatch):
    class Counted(list):
        passes = 0

        def __iter__(self):
            type(self).passes += 1
            return super().__iter__()

    class Test(Counted):
        passes = 0

    net = network()
    own, test = Counted(images()), Test(images((4,)))
    surface = ll.LossSurface(net, ll.Classification(), own, bn_loader=images())
    refreshed = []
    exact = surface.statistics.exact
    monkeypatch.setattr(surface.statistics, "exact", lambda *a: refreshed.append(1) or exact(*a))
    w = surface.layout.flatten(net)
    ll.path(ll.Line(w, 2 * w), surface, points=7, loader=test, strategy="points")
    assert len(refreshed) == 7
    assert (Counted.passes, Test.passes) == (1, 1)


@pytest.mark.parametrize("kept", ["neither", "own", "test"])
def test_rows_that_do_not_fit_in_memory_are_read_again_and_give_the_same(monkeypatch, kept):
    test = [(x**3, y) for x, y in images((6, 7))]
    surface, line = normed()
    expected = ll.path(line, surface, points=5, loader=test)
    resident = Rows.resident

    def fits(rows):
        mine = "own" if rows.loader is surface.data.loader else "test"
        found = resident(rows)  # a pass, as it is where rows turn out too many
        return found if mine == kept else None

    monkeypatch.setattr(Rows, "resident", fits)
    for strategy in (None, "batches"):
        found = ll.path(line, surface, points=5, loader=test, strategy=strategy, chunk=2)
        torch.testing.assert_close(found.loss, expected.loss, rtol=1e-5, atol=0)
        torch.testing.assert_close(found.test_loss, expected.test_loss, rtol=1e-5, atol=0)


def test_frozen_statistics_are_those_of_the_model():
    surface, line = normed()
    found = ll.path(line, surface, points=3, batchnorm="frozen")
    expected = [float(surface(w, batchnorm="frozen")) for w in line.points(found.t)]
    assert found.loss.tolist() == pytest.approx(expected, rel=1e-5)
    assert found.batchnorm == "frozen"
    assert not torch.allclose(found.loss, ll.path(line, surface, points=3).loss, rtol=1e-2)


@pytest.mark.parametrize("kind", [ll.Line, ll.Bezier, ll.PolyChain])
def test_a_curve_knows_that_its_ends_had_statistics(kind, tmp_path):
    surface, line = normed()
    w0, w1 = line.anchors
    curve = kind.between(ll.Point(w0, surface.refresh(w0)), w1)
    curve.save(tmp_path / "curve.safetensors")
    moved = curve.with_anchors(2 * curve.anchors).to("cpu")
    for one in (curve, moved, ll.Shape.load(tmp_path / "curve.safetensors")):
        with pytest.raises(ll.ConfigError, match=f"that the {kind.__name__} was made of"):
            ll.path(one, surface, points=2, batchnorm="frozen")
        assert ll.path(one, surface, points=2).loss.isfinite().all()
    for bare in (kind.between(ll.Point(w0), w1), kind.between(w0, w1)):
        assert ll.path(bare, surface, points=2, batchnorm="frozen").loss.isfinite().all()


def test_regressions_have_an_rmse_and_no_error():
    surface, loss = bowl()
    w0, w1 = ends()
    test = targets((5,), features=FEATURES)
    found = ll.path(ll.Line(w0, w1), surface, points=3, loader=test)
    mse = 2 * (loss(ll.Line(w0, w1)(found.t).double()) - 0.5 * math.log(2 * math.pi))
    torch.testing.assert_close(found.figures["rmse"], mse.sqrt(), rtol=1e-5, atol=1e-6)
    assert found.test_error.isnan().all()
    assert found.test_loss.isfinite().all()
    assert "test_rmse" in found.figures


def test_coordinates_of_your_own_extend_the_curve():
    surface, loss = bowl()
    curve, by_hand = curves(*ends())["bezier"]
    t = torch.tensor([-0.5, 0.0, 0.3, 1.0, 1.25], dtype=torch.float64)
    for given in (t, t.tolist(), t[:, None], t.numpy()):
        found = ll.path(curve, surface, t=given)
        torch.testing.assert_close(found.loss, loss(by_hand(t[:, None])), rtol=1e-5, atol=1e-6)
    assert found.outside
    assert found.length[0] < 0 == found.length[1] < found.length[4]
    assert not ll.path(curve, surface, t=[0.0, 0.5]).outside


def test_what_is_not_finite_stays_and_nothing_finite_is_an_error():
    rows = [(torch.ones(2, 1), torch.zeros(2, 1))]
    surface = ll.LossSurface(nn.Linear(1, 1), ll.Regression(noise_variance=1.0), rows)
    far = torch.tensor([3e38, 3e38])
    found = ll.path(ll.Line(torch.zeros(2), far), surface, points=3)
    assert found.loss.isfinite().tolist() == [True, False, False]
    assert not math.isfinite(found.barrier)
    with pytest.raises(ll.NonFiniteError, match="NaN or infinite at all 2 points"):
        ll.path(ll.Line(far, 0.9 * far), surface, points=2)
    net = mlp()
    surface = ll.LossSurface(net, ll.Classification(), [(torch.ones(4, 6), torch.zeros(4).long())])
    w = surface.layout.flatten(net)
    found = ll.path(ll.Line(w, torch.full_like(w, 3e38)), surface, points=3)
    assert found.loss[[0, -1]].isnan().tolist() == [False, True]
    assert found.error[[0, -1]].isnan().tolist() == [False, True]


def test_fewer_rows():
    surface, line = normed()
    found = ll.path(line, surface, points=2, loader=images((9,)), count=8)
    assert found.rows == 8
    assert found.loss[0].item() == pytest.approx(
        float(surface(line(0.0), loader=images()[:1])), rel=1e-5
    )


def test_progress_counts_points():
    surface, _ = bowl()
    seen = []
    ll.path(ll.Line(*ends()), surface, points=5, strategy="batches", chunk=2,
            progress=lambda done, total: seen.append((done, total)))  # fmt: skip
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_what_cannot_be_walked_is_said():
    surface, _ = bowl()
    line = ll.Line(*ends())
    with pytest.raises(ll.ConfigError, match=r"got Plane; ll\.scan"):
        ll.path(ll.Plane.through(*ends(n=3)), surface)
    with pytest.raises(ll.ConfigError, match=r"points: expected at least 2, got 1"):
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
    found = ll.path(ll.Line(*ends()), surface, points=5)
    back = type(found).load(found.save(tmp_path / "path.json"))
    assert back.loss.tolist() == found.loss.tolist()
    assert found.plot().get_ylabel() == "loss (nats)"


class Stop(Exception):
    """What ends a path in the middle."""


@pytest.mark.parametrize("options", [{}, {"strategy": "vmap", "chunk": 3}, {"chunk": 2}])
def test_a_path_that_was_stopped_goes_on_to_the_same_bits(tmp_path, options):
    case = next(case for case in CASES if case.name == "conv_bn")
    surface = case.surface()
    w = surface.layout.flatten(case.model())
    curve = ll.Bezier.between(w, w + 1)
    test = images((4, 3))
    whole = ll.path(curve, surface, points=7, loader=test, **options)
    for at in range(1, 5):
        file = tmp_path / f"{at}.journal"
        count = 0

        def progress(done, total, at=at):
            nonlocal count
            count += 1
            if count == at:
                raise Stop

        stored = options | {"points": 7, "loader": test, "store": file}
        with suppress(Stop):
            ll.path(curve, surface, progress=progress, **stored)
        again = ll.path(curve, surface, **stored)
        assert torch.equal(again.loss, whole.loss)
        assert torch.equal(again.test_loss, whole.test_loss)
        assert again.figures.keys() == whole.figures.keys()
        assert torch.equal(again.figures["test_ece"], whole.figures["test_ece"])
    seen = []
    ll.path(curve, surface, progress=lambda done, total: seen.append(done), **stored)
    assert seen[0] == 7  # nothing is left to do
    with pytest.raises(ConfigError, match="other settings: t"):
        ll.path(curve, surface, **stored | {"points": 5})


def test_a_loader_that_changes_from_path_to_path_is_refused():
    class Noisy:
        def __iter__(self):
            yield torch.randn(8, 6), torch.arange(8) % 3

        def __len__(self):
            return 1

    model = mlp()
    surface = ll.LossSurface(model, ll.Classification(), Noisy())
    w = surface.layout.flatten(model)
    ll.path(ll.Line(w, w + 1), surface, points=3)
    with pytest.raises(ll.DataError, match="changed"):
        ll.path(ll.Line(w, w + 1), surface, points=3)


def test_a_barrier_is_between_the_ends_even_where_the_path_goes_on():
    t = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])
    found = ll.records.PathResult(t, torch.tensor([9.0, 1.0, 3.0, 2.0, 9.0]), *[torch.zeros(5)] * 4)
    assert found.barrier == 1.5


def test_test_rows_are_not_cut_with_the_others():
    model = mlp()
    rows = [(torch.randn(8, 6), torch.arange(8) % 3)]
    surface = ll.LossSurface(model, ll.Classification(), rows)
    w = surface.layout.flatten(model)
    line = ll.Line(w, w + 1)
    whole = ll.path(line, surface, points=3, loader=rows)
    some = ll.path(line, surface, points=3, loader=rows, count=3)
    assert torch.allclose(some.test_loss, whole.test_loss)
    assert some.rows == 3
    assert not torch.allclose(some.loss, whole.loss)
    fewer = ll.path(line, surface, points=3, loader=rows, test_count=3)
    assert torch.allclose(fewer.test_loss, some.loss)
