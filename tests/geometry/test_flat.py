"""Planes and subspaces: the contract, and what is their own."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

import lowland as ll
from lowland.geometry.affine import orthonormal
from tests.geometry.contract import ShapeContract, generator, vectors


class FlatContract(ShapeContract):
    def by_hand(self, shape, coords):
        return shape.center.double() + coords @ shape.basis.double()

    def test_the_center_is_at_zero_and_nothing_is_free(self):
        shape = self.make()
        assert torch.equal(shape(torch.zeros(1, shape.k))[0], shape.center)
        assert not any(shape.free)
        assert shape.basis.shape == (shape.k, shape.size)


class TestPlane(FlatContract):
    def make(self, dtype=torch.float32):
        return ll.Plane.through(*vectors(3, dtype))

    def distribution(self, shape, i):
        low, high = shape.marks[:, i].min(), shape.marks[:, i].max()
        return scipy.stats.uniform(float(low), float(high - low))


class TestPlaneByDirections(FlatContract):
    def make(self, dtype=torch.float32):
        w, u, v = vectors(3, dtype)
        return ll.Plane(w, 0.3 * u, v + u)  # neither orthogonal nor of one length

    def distribution(self, shape, i):
        return scipy.stats.uniform(-1, 2)


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


# -- planes ----------------------------------------------------------------------------------------


def test_a_plane_holds_its_three_points_at_their_true_distances():
    a, b, c = points = vectors(3)
    plane = ll.Plane.through(a, b, c)
    gram = plane.basis.double() @ plane.basis.double().T
    torch.testing.assert_close(gram, torch.eye(2).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(plane(plane.marks), points, rtol=1e-5, atol=1e-5)
    distance = torch.cdist(points.double(), points.double())
    torch.testing.assert_close(
        torch.cdist(plane.marks, plane.marks), distance, rtol=1e-6, atol=1e-5
    )
    assert plane.marks[0].tolist() == [0, 0]
    assert plane.marks[1, 1].abs() < 1e-5  # the first direction leads from a to b
    (x0, x1), (y0, y1) = plane.box(0.2)
    low, high = plane.marks.min(0).values, plane.marks.max(0).values
    more = 0.2 * (high - low).max()  # equal to all sides
    assert [x0, y0] == pytest.approx((low - more).tolist())
    assert [x1, y1] == pytest.approx((high + more).tolist())
    assert ll.Plane(a, b, c).box(0.2) == ((-1, 1), (-1, 1))


@pytest.mark.parametrize("off", [1e-4, 0.01, 0.1])
def test_points_nearly_on_a_line_are_not_seen_in_a_stripe(off):
    a, b, noise = vectors(3)
    between = torch.lerp(a, b, 0.4) + off * noise
    plane = ll.Plane.through(a, b, between)
    (x0, x1), (y0, y1) = plane.box(0.2)
    length = float(torch.dist(a, b))
    assert (x0, x1) == pytest.approx((-0.2 * length, 1.2 * length), rel=1e-4)
    assert y1 - y0 == pytest.approx(2 / 3 * (x1 - x0))
    height = float(plane.marks[2, 1])
    assert (y0 + y1) / 2 == pytest.approx(
        height / 2, abs=1e-5 * length
    )  # the marks stay in the middle


@pytest.mark.parametrize("scale", [1.0, 1e-2])
def test_three_points_on_a_line_make_no_plane(scale):
    """The third is rounded to float32, and so is nearly on the line, not on it."""
    a, step = vectors(2, size=5000)
    b = a + scale * step
    for third in (a.lerp(b, 0.3), a.lerp(b, 0.5), a.lerp(b, -2.0), b.clone(), a.clone()):
        with pytest.raises(ll.ConfigError, match="three points lie on a line"):
            ll.Plane.through(a, b, third)
    off = a.lerp(b, 0.5)
    off[0] += 1e-2 * scale * float(step.norm())
    assert ll.Plane.through(a, b, off).k == 2


def test_bad_points_of_a_plane_are_refused():
    a, b, c = vectors(3)
    with pytest.raises(ll.LayoutError, match="of one model"):
        ll.Plane.through(a, b, c[:-1])
    with pytest.raises(ll.NonFiniteError, match="the points 2 holds NaN"):
        ll.Plane.through(a, b, torch.full_like(c, math.nan))
    with pytest.raises(ll.ConfigError, match="a direction is zero"):
        ll.Plane(a, b, torch.zeros_like(c))
    with pytest.raises(ll.ConfigError, match="directions depend on one another"):
        ll.Plane(a, b, -2 * b)


# -- subspaces -------------------------------------------------------------------------------------


def by_svd(iterates, rank):
    """Mean and components times standard deviations, by numpy in float64."""
    wide = iterates.double().numpy()
    mean = wide.mean(0)
    _, s, vt = np.linalg.svd(wide - mean, full_matrices=False)
    return mean, s[:rank, None] * vt[:rank] / math.sqrt(len(wide) - 1)


def assert_components(sub, mean, rows, tolerance=1e-5):
    np.testing.assert_allclose(sub.center.double(), mean, rtol=tolerance, atol=tolerance)
    found = sub.basis.double().numpy()
    signs = np.sign((found * rows).sum(1, keepdims=True))  # a component has no sign
    scale = np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(signs * found / scale, rows / scale, rtol=0, atol=tolerance)


def walk(n=12, size=3000):
    """Iterates that drift, far from the origin, as those of SGD do."""
    steps = vectors(n, size=size, seed=3) * torch.linspace(1, 0.2, n)[:, None]
    return 10 * vectors(1, size=size, seed=4) + 0.1 * steps.cumsum(0)


def test_components_of_a_tensor_are_those_of_a_decomposition_in_float64():
    iterates = walk()
    assert_components(ll.Subspace.pca(iterates, rank=5), *by_svd(iterates, 5))
    # the broken twin: iterates that are not centred
    _, rows = by_svd(iterates, 5)
    gram = iterates.double() @ iterates.double().T
    _, vecs = torch.linalg.eigh(gram)
    twin = (vecs.flip(1)[:, :5].T @ iterates.double()).numpy() / math.sqrt(11)
    assert abs(np.linalg.norm(twin[0]) / np.linalg.norm(rows[0]) - 1) > 1


def test_blocks_of_columns_do_not_change_the_components(monkeypatch):
    iterates = walk()
    expected = by_svd(iterates, 5)
    monkeypatch.setattr("lowland.geometry.pca._LEAST", 1)
    threads = torch.get_num_threads()
    for values in (1, 12 * 128, 12 * 2999, 12 * 3000):
        monkeypatch.setattr("lowland.geometry.pca._VALUES", values)
        columns = slice(None) if values > 1 else slice(0, 70)
        some = iterates[:, columns]
        assert_components(
            ll.Subspace.pca(some, rank=5), *(expected if values > 1 else by_svd(some, 5))
        )
    assert torch.get_num_threads() == threads


def layout_of(size=3000):
    return ll.ParamLayout(torch.nn.Linear(size, 1, bias=False))


def test_components_of_a_trajectory(tmp_path):
    layout, iterates = layout_of(), walk()
    model = torch.nn.Linear(3000, 1, bias=False)
    trajectory = ll.Trajectory.create(tmp_path / "run", layout)
    for step, w in enumerate(iterates):
        trajectory.append(layout.load_(model, w), step=step)
    expected = by_svd(iterates, 4)
    assert_components(ll.Subspace.pca(trajectory, rank=4), *expected)
    assert_components(trajectory.pca(rank=4), *expected)


def test_components_of_swag_are_those_of_its_deviations():
    swag = ll.SWAG(layout_of(), rank=8)
    iterates = walk()
    for w in iterates:
        swag.update(w)
    deviations = swag.deviations.double().numpy()
    _, s, vt = np.linalg.svd(deviations, full_matrices=False)
    rows = s[:3, None] * vt[:3] / math.sqrt(len(deviations) - 1)
    assert_components(ll.Subspace.pca(swag, rank=3), iterates.double().mean(0).numpy(), rows)


def test_more_components_than_there_are_is_an_error():
    iterates = walk(4)
    with pytest.raises(ll.ConfigError, match="rank: expected 1 to 3, which 4 iterates"):
        ll.Subspace.pca(iterates, rank=4)
    with pytest.raises(ll.ConfigError, match="rank: expected 1 to 3"):
        ll.Subspace.pca(iterates, rank=0)
    with pytest.raises(ll.DataError, match="at least two iterates, got 1"):
        ll.Subspace.pca(iterates[:1], rank=1)
    flat = iterates[:1] + torch.arange(4.0)[:, None] * iterates[1]
    with pytest.raises(ll.ConfigError, match=r"at most 1, .*span, got 2"):
        ll.Subspace.pca(flat.double(), rank=2)
    with pytest.raises(ll.DataError, match=r"expected a Trajectory, a SWAG, .* or iterates"):
        ll.Subspace.pca(3)


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


def test_orthonormal_rows_of_nearly_parallel_vectors():
    """Twice through float64: once, what is left of long vectors is no longer orthogonal."""
    a, b = vectors(2, size=5000)
    rows = orthonormal(torch.stack([1e3 * a, 1e3 * a + b]))
    assert abs(float(rows[0].double() @ rows[1].double())) < 1e-6


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


def test_coordinates_of_directions_that_are_far_from_orthogonal():
    w, a, b = vectors(3, torch.float64)
    sub = ll.Subspace(w, torch.stack([a, a + 1e-3 * b]))
    coords = torch.randn(4, 2, generator=generator(), dtype=torch.float64)
    found, far = sub.coords_of(sub(coords))
    torch.testing.assert_close(found, coords, rtol=1e-6, atol=1e-6)
    assert float(far.max()) < 1e-9


def test_marks_travel_with_the_plane():
    plane = ll.Plane.through(*vectors(3)).to("meta")
    assert plane.anchors.device == plane.marks.device == torch.device("meta")


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


def test_orthonormal_leaves_its_argument_as_it_was():
    given = torch.tensor([[3.0, 0, 0], [1.0, 2.0, 0]])
    rows = orthonormal(given)
    assert torch.equal(rows, torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]))
    assert torch.equal(given, torch.tensor([[3.0, 0, 0], [1.0, 2.0, 0]]))


def test_a_random_subspace_around_nan_is_refused():
    with pytest.raises(ll.NonFiniteError, match="the center"):
        ll.Subspace.random(torch.tensor([1.0, float("nan"), 0.0]), rank=1)
