"""Subspaces: the contract, random directions, and the subspace of a curve."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

import lowland as ll
from tests.geometry.contract import FlatContract, vectors


class TestSubspace(FlatContract):
    def make(self, dtype=torch.float32):
        center, *basis = vectors(5, dtype)
        return ll.Subspace(center, torch.stack(basis))

    def distribution(self, shape, i):
        return scipy.stats.norm()


class TestOneDirection(TestSubspace):
    def make(self, dtype=torch.float32):
        center, direction = vectors(2, dtype)
        return ll.Subspace(center, direction[None])


class TestRandom(TestSubspace):
    def make(self, dtype=torch.float32):
        return ll.Subspace.random(vectors(1, dtype)[0], rank=3)


class TestPca(TestSubspace):
    def make(self, dtype=torch.float32):
        return ll.Subspace.pca(vectors(8, dtype), rank=3)


class TestFromCurve(TestSubspace):
    def make(self, dtype=torch.float32):
        anchors = vectors(4, dtype)
        curve = ll.Bezier.between(anchors[0], anchors[-1], bends=2)
        return ll.Subspace.from_curve(curve.with_anchors(anchors))


@pytest.mark.parametrize("bends", [1, 3])
def test_a_curves_subspace_holds_its_anchors(bends):
    anchors = vectors(bends + 2)
    curve = ll.Bezier.between(anchors[0], anchors[-1], bends=bends).with_anchors(anchors)
    sub = ll.Subspace.from_curve(curve)
    assert sub.k == bends + 1
    coords, far = sub.coords_of(anchors)
    assert float(far.max()) < 1e-5
    torch.testing.assert_close(sub(coords), anchors, rtol=1e-5, atol=1e-5)
    assert coords[[0, -1], 0].tolist() == pytest.approx([-1, 1], abs=1e-6)
    assert float(coords[[0, -1], 1:].abs().max()) < 1e-5
    gram = sub.basis.double() @ sub.basis.double().T
    off = gram - gram.diag().diag()
    assert float(off.abs().max()) < 1e-5 * float(gram.max())


@pytest.mark.parametrize("kind", [ll.Bezier, ll.PolyChain])
@pytest.mark.parametrize("bends", [1, 2])
def test_a_straight_curve_spans_no_plane(kind, bends):
    """Before it is fitted all bends lie on the chord, up to rounding."""
    w0, w1 = vectors(2, size=5000)
    with pytest.raises(ll.ConfigError, match="lie on"):
        ll.Subspace.from_curve(kind.between(w0, w1, bends=bends))
    line = ll.Subspace.from_curve(ll.Line(w0, w1))
    assert line.k == 1


def test_random_directions_are_orthonormal_and_seeded():
    w = vectors(1, size=20000)[0]
    sub = ll.Subspace.random(w, rank=6)
    gram = sub.basis.double() @ sub.basis.double().T
    torch.testing.assert_close(gram, torch.eye(6).double(), rtol=0, atol=1e-6)
    assert torch.equal(sub.center, w)
    assert torch.equal(sub.basis, ll.Subspace.random(w, rank=6).basis)
    other = ll.Subspace.random(w, rank=6, seed=1)
    assert float((sub.basis @ other.basis.T).abs().max()) < 0.05
    for rank in (0, 20001):
        with pytest.raises(
            ll.ConfigError, match=rf"rank: expected a whole number from 1 to 20,000, got {rank}"
        ):
            ll.Subspace.random(w, rank=rank)
    state = torch.get_rng_state()
    ll.Subspace.random(w, rank=2)
    assert torch.equal(state, torch.get_rng_state())


def test_bad_directions_are_refused():
    w, a, b = vectors(3)
    with pytest.raises(ll.ConfigError, match=r"basis: expected \(k, P\), .*got \(50,\)"):
        ll.Subspace(w, a)
    with pytest.raises(ll.ConfigError, match=r"k at least 1, got \(0, 50\)"):
        ll.Subspace(w, a[None][:0])
    with pytest.raises(ll.ConfigError, match="depend on one another"):
        ll.Subspace(w, torch.stack([a, b, a - b]))
    with pytest.raises(ll.ConfigError, match="a direction is zero"):
        ll.Subspace(w, torch.stack([a, 0 * b]))
    with pytest.raises(ll.LayoutError, match="of one model"):
        ll.Subspace(w, torch.zeros(2, 51))
    with pytest.raises(ll.NonFiniteError, match="holds NaN"):
        ll.Subspace(w, torch.stack([a, math.nan * b]))


CURVE = Path(__file__).parents[3] / "shared" / "data" / "regression1d_curve.npy"


def published():
    """The curve subspace of the 1-D regression, built by hand as its authors do."""
    if not CURVE.is_file():
        pytest.skip(f"needs the published curve, {CURVE.name}")
    first, bend, last = torch.from_numpy(np.load(CURVE)).double()
    center = (first + bend + last) / 3
    u = (last - first) / math.sqrt(3)
    v = bend - first
    v = (v - (v @ u) / (u @ u) * u) / 1.5
    return ll.Subspace(center, torch.stack([u, v])), (first, bend, last)


def test_the_published_curves_subspace_is_the_plane_of_its_three_points():
    """u and v are orthogonal, and the points' mean is zero in their coordinates."""
    sub, points = published()
    assert sub.k == 2
    assert sub.size == 15801
    u, v = sub.basis
    assert abs(float(u @ v)) < 1e-9 * float(u.norm() * v.norm())
    coords, far = sub.coords_of(torch.stack(points))
    assert float(far.max()) < 1e-6
    first, bend, last = coords
    torch.testing.assert_close(coords.mean(0), torch.zeros(2).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(last - first, torch.tensor([math.sqrt(3), 0.0]).double())
    assert float((bend - first)[1]) == pytest.approx(1.5)
    assert float(first[1]) == float(last[1]) == pytest.approx(-0.5)


def test_from_curve_spans_the_published_subspace_too():
    """The same plane, around the middle of the ends and in other units."""
    sub, points = published()
    curve = ll.Bezier.between(points[0], points[2]).with_anchors(torch.stack(points))
    ours = ll.Subspace.from_curve(curve)
    assert float(sub.coords_of(ours.center + ours.basis)[1].max()) < 1e-6
    assert ours.basis[0].norm() / sub.basis[0].norm() == pytest.approx(math.sqrt(3) / 2)
    assert ours.basis[1].norm() / sub.basis[1].norm() == pytest.approx(1.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_subspaces_share_no_memory_with_what_they_came_from(dtype):
    w, iterates = torch.ones(7, dtype=dtype), torch.randn(4, 7, dtype=dtype)
    for sub, source in (
        (ll.Subspace.random(w, rank=3), w),
        (ll.Subspace.pca(iterates, rank=2), iterates),
        (ll.Subspace(w, iterates[:2]), iterates),
    ):
        before = sub.anchors.clone()
        assert sub.anchors.dtype == dtype
        source.mul_(3)
        assert torch.equal(sub.anchors, before)


def test_a_random_subspace_around_nan_is_refused():
    with pytest.raises(ll.NonFiniteError, match="the center"):
        ll.Subspace.random(torch.tensor([1.0, float("nan"), 0.0]), rank=1)
