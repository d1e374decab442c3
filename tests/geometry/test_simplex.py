"""Simplexes and complexes against closed forms; what the published code got wrong."""

import itertools
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

import lowland as ll
from lowland.geometry.nearest import nearest
from tests.geometry.contract import SIZE, ShapeContract, generator, vectors


def barycentric(n, k, seed=1):
    raw = torch.rand(n, k, generator=generator(seed), dtype=torch.float64)
    return raw / raw.sum(1, keepdim=True)


class TestSimplex(ShapeContract):
    def make(self, dtype=torch.float32):
        return ll.Simplex(vectors(4, dtype), free=[False, False, False, True])

    def by_hand(self, shape, coords):
        return sum(coords[:, a : a + 1] * shape.anchors[a].double() for a in range(4))

    def some(self, n=7, seed=1):
        return barycentric(n, 4, seed)

    def outside(self):
        return 3 * self.some() - 0.5  # of sum one, some of them negative

    def distribution(self, shape, i):
        return scipy.stats.beta(1, 3)  # a marginal of Dirichlet(1)


class TestComplex(ShapeContract):
    def make(self, dtype=torch.float32):
        w = vectors(5, dtype)
        return ll.SimplicialComplex([ll.Simplex(w[[0, 2, 3]]), ll.Simplex(w[[1, 2, 3]])])

    def by_hand(self, shape, coords):
        return sum(coords[:, a : a + 1] * shape.anchors[a].double() for a in range(4))

    def some(self, n=7, seed=1):
        coords = barycentric(n, 4, seed)
        coords[::2, 0] = 0
        coords[1::2, 3] = 0  # vertex 3 is the second mode
        return coords / coords.sum(1, keepdim=True)

    def outside(self):
        return 3 * self.some() - 0.5

    def test_sampled_coordinates_have_the_shapes_distribution(self):
        shape = self.make()
        coords = shape.sample_coords(2000, generator=generator())
        first, second = shape.shares().tolist()
        assert first == pytest.approx(1 - second)
        for i, share in ((0, first), (1, 1.0), (2, 1.0), (3, second)):
            there = coords[:, i][coords[:, i] > 0].numpy()  # the rest is of the other simplex
            assert abs(len(there) - 2000 * share) <= 1
            assert scipy.stats.kstest(there, scipy.stats.beta(1, 2).cdf).pvalue > 1e-3
        assert torch.equal(coords, shape.sample_coords(2000, generator=generator()))


# -- volume ----------------------------------------------------------------------------------------


def regular(vertices, size, edge=1.0, offset=0.0, dtype=torch.float32):
    """A regular simplex, and the logarithm of its volume."""
    anchors = torch.full((vertices, size), offset, dtype=dtype)
    for i in range(vertices):  # spread over the whole vector
        anchors[i, (i * size) // vertices] += edge
    k = vertices - 1
    log = k * math.log(edge * math.sqrt(2)) + 0.5 * math.log((k + 1) / 2**k) - math.lgamma(k + 1)
    return anchors, log


@pytest.mark.parametrize("vertices", [2, 3, 5, 12, 30, 100])
@pytest.mark.parametrize("offset", [0.0, 4096.0])
def test_the_volume_of_a_regular_simplex(vertices, offset):
    anchors, log = regular(vertices, 20_000, edge=0.5, offset=offset)
    assert abs(float(ll.Simplex(anchors).log_volume()) - log) < 1e-10


def test_a_hundred_vertices_of_a_million_parameters():
    anchors, log = regular(100, 1_000_000, edge=2.0)
    assert abs(float(ll.Simplex(anchors).log_volume()) - log) < 1e-10


def cayley_menger(anchors):
    """The published volume: a determinant in float32, and without the square root."""
    n = len(anchors)
    matrix = torch.ones(n + 1, n + 1)
    matrix[0, 0] = 0
    matrix[1:, 1:] = torch.cdist(anchors, anchors).square()
    k = n - 1
    return ((-1) ** (k + 1)) / (2**k * math.factorial(k) ** 2) * torch.det(matrix)


def test_the_published_volume_is_a_square_and_overflows():
    triangle = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    assert float(cayley_menger(triangle)) == pytest.approx(9.0)  # the square of
    assert float(ll.Simplex(triangle).log_volume().exp()) == pytest.approx(3.0)
    anchors = 0.1 * torch.randn(12, 1_000_000, generator=generator())  # weights of any network
    assert not math.isfinite(float(cayley_menger(anchors)))
    edges = anchors[1:].double() - anchors[0].double()
    expected = 0.5 * torch.linalg.slogdet(edges @ edges.T)[1] - math.lgamma(12)
    assert float(ll.Simplex(anchors).log_volume()) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("shape", ["simplex", "complex"])
def test_the_gradient_of_the_volume_by_the_inner_products_is_autograds(shape):
    w = vectors(5, torch.float64)
    made = ll.Simplex(w) if shape == "simplex" else ll.SimplicialComplex.connecting(w[:3], w[3:])
    leaf = made.anchors.clone().requires_grad_()
    total = []
    for cell in made.cells:
        edges = leaf[list(cell[1:])] - leaf[cell[0]]
        total.append(0.5 * torch.logdet(edges @ edges.T) - math.lgamma(len(cell)))
    expected = torch.logsumexp(torch.stack(total), 0)
    expected.backward()
    gram = made.seen().requires_grad_()
    value = made.log_volume(gram)
    (by,) = torch.autograd.grad(value, gram)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close((by + by.T) @ made.anchors, leaf.grad, rtol=1e-10, atol=1e-12)


def test_a_slender_simplex_has_its_volume():
    anchors = torch.zeros(3, 10, dtype=torch.float64)
    anchors[1, 0], anchors[2, 0], anchors[2, 1] = 1.0, 0.5, 1e-5
    assert float(ll.Simplex(anchors).log_volume()) == pytest.approx(math.log(0.5e-5), abs=1e-7)


# -- what is no simplex ----------------------------------------------------------------------------


def test_degenerate_simplexes_are_refused():
    a, b, c = vectors(3)
    with pytest.raises(ll.ConfigError, match="vertices 0 and 2 are the same weights"):
        ll.Simplex([a, b, a.clone()])
    with pytest.raises(ll.ConfigError, match="fewer dimensions"):
        ll.Simplex([a, b, (a + b) / 2])
    with pytest.raises(ll.ConfigError, match="fewer dimensions"):
        ll.Simplex([a, b, c, 0.2 * a + 0.3 * b + 0.5 * c])
    with pytest.raises(ll.ConfigError, match=r"4 vertices span no simplex in 2 dimensions.*3"):
        ll.Simplex(vectors(4, size=2))
    with pytest.raises(ll.ConfigError, match="at least one vertex"):
        ll.Simplex([])
    with pytest.raises(ll.LayoutError, match="of one model"):
        ll.Simplex([a, torch.zeros(3)])
    with pytest.raises(ll.NonFiniteError, match="the vertices 1 holds NaN"):
        ll.Simplex([a, torch.full_like(a, math.nan)])
    with pytest.raises(ll.ConfigError, match=r"got a Point; one alone is Simplex\(\[w\]\)"):
        ll.Simplex(ll.Point(a))
    with pytest.raises(ll.LayoutError, match="at least one of"):
        ll.Simplex([a, b]).coords_of(torch.zeros(0, SIZE))
    with pytest.raises(ll.ConfigError, match="sum of nan"):
        ll.Simplex([a, b])([math.nan, 1.0])
    with pytest.raises(ll.ConfigError, match="sum of 2"):
        ll.Simplex([a, b])([1.0, 1.0])
    with pytest.raises(ll.LowlandError, match="a Plane has no volume"):
        ll.Plane.through(a, b, c).log_volume()


def test_complexes_that_are_none_are_refused():
    a, b, c, d = vectors(4)
    with pytest.raises(ll.ConfigError, match=r"2 and 3 vertices.*weights='equal'"):
        ll.SimplicialComplex([ll.Simplex([a, b]), ll.Simplex([b, c, d])])
    mixed = ll.SimplicialComplex([ll.Simplex([a, b]), ll.Simplex([b, c, d])], weights="equal")
    assert mixed.shares().tolist() == [0.5, 0.5]
    with pytest.raises(ll.ConfigError, match=r"2 and 3 vertices .* do not add up"):
        mixed.log_volume()
    with pytest.raises(ll.ConfigError, match="occurs twice"):
        ll.SimplicialComplex([ll.Simplex([a, b]), ll.Simplex([b, a])])
    with pytest.raises(ll.LayoutError, match="P = 50, 3"):
        ll.SimplicialComplex([ll.Simplex([a, b]), ll.Simplex(vectors(2, size=3))])
    with pytest.raises(ll.ConfigError, match="at least one simplex"):
        ll.SimplicialComplex([])
    with pytest.raises(ll.ConfigError, match="'volume' or 'equal'"):
        ll.SimplicialComplex([ll.Simplex([a, b])], weights="even")
    with pytest.raises(ll.ConfigError, match="at least two to connect, got 1"):
        ll.SimplicialComplex.connecting([a])


# -- growing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("vertices", [1, 2, 5])
def test_a_new_vertex_stands_above_the_centroid(vertices, dtype):
    w = vectors(vertices, dtype, size=400) + 3
    simplex = ll.Simplex(w)
    grown = simplex.grow(jitter=0.05, seed=2)
    assert torch.equal(grown.anchors[:-1], w)
    assert grown.free == (False,) * vertices + (True,)
    assert torch.equal(grown.anchors, simplex.grow(jitter=0.05, seed=2).anchors)
    assert not torch.equal(grown.anchors, simplex.grow(jitter=0.05, seed=3).anchors)
    pairs = list(itertools.combinations(w.double(), 2))
    reach = np.mean([float((a - b).norm()) for a, b in pairs]) if pairs else float(w.norm())
    up = grown.anchors[-1].double() - w.double().mean(0)
    assert float(up.norm()) == pytest.approx(0.05 * reach, rel=1e-4)
    edges = w[1:].double() - w[0].double()
    if len(edges):
        cosines = (edges @ up) / edges.norm(dim=1) / up.norm()
        assert float(cosines.abs().max()) < (1e-4 if dtype == torch.float32 else 1e-12)
    assert math.isfinite(float(grown.log_volume()))


def test_the_centroid_itself_has_no_volume():
    w = vectors(3)
    with pytest.raises(ll.ConfigError, match="no volume"):  # the published start of a vertex
        ll.Simplex([*w, w.mean(0)])
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ll.ConfigError, match="jitter: expected a number above 0"):
            ll.Simplex(w).grow(jitter=bad)
    with pytest.raises(ll.ConfigError, match="fill the 2 dimensions"):
        ll.Simplex(torch.tensor([[0.0, 0], [1, 0], [0, 1]])).grow()
    with pytest.raises(ll.ConfigError, match="only vertex is zero"):
        ll.Simplex([torch.zeros(4)]).grow()


def test_a_complex_grows_by_a_vertex_that_all_its_simplexes_share():
    modes = vectors(3)
    grown = ll.SimplicialComplex.connecting(modes).grow().grow(seed=1)
    assert grown.cells == ((0, 3, 4), (1, 3, 4), (2, 3, 4))
    assert grown.free == (False, False, False, False, True)
    assert torch.equal(grown.anchors[:3], modes)
    by_hand = ll.SimplicialComplex.connecting(modes, grown.anchors[3:])
    torch.testing.assert_close(by_hand.log_volume(), grown.log_volume())
    assert by_hand.cells == grown.cells
    assert torch.equal(by_hand.anchors, grown.anchors)
    assert by_hand.free == (False, False, False, True, True)


# -- drawing ---------------------------------------------------------------------------------------


def test_draws_are_uniform_over_the_cells_of_a_subdivision():
    # for u sorted uniforms the gaps are Dirichlet(1); the order of three coordinates cuts a
    # triangle into six equal cells, and the halves nearest to each vertex cut it into four
    simplex = ll.Simplex(vectors(3))
    coords = simplex.sample_coords(12_000, generator=generator())
    order = coords.argsort(1) @ torch.tensor([9, 3, 1])
    corner = torch.where(coords.max(1).values > 0.5, coords.argmax(1), 3)
    for cells in (order.unique(return_counts=True)[1], torch.bincount(corner)):
        assert scipy.stats.chisquare(cells.numpy()).pvalue > 1e-3
    raw = torch.rand(12_000, 3, generator=generator(), dtype=torch.float64)
    twin = raw / raw.sum(1, keepdim=True)  # normalised uniforms crowd in the middle
    corner = torch.where(twin.max(1).values > 0.5, twin.argmax(1), 3)
    assert scipy.stats.chisquare(torch.bincount(corner).numpy()).pvalue < 1e-6


def test_simplexes_are_drawn_in_proportion_to_volume():
    a = torch.zeros(4, 3)
    a[1, 0], a[2, 1], a[3, 2] = 1.0, 1.0, 4.0
    made = ll.SimplicialComplex([ll.Simplex(a[[0, 1, 2]]), ll.Simplex(a[[0, 1, 3]])])
    assert made.shares().tolist() == pytest.approx([0.2, 0.8])  # areas of 1/2 and 2
    assert float(made.log_volume().exp()) == pytest.approx(2.5)
    coords = made.sample_coords(1000, generator=generator())
    assert int((coords[:, 2] > 0).sum()) in (199, 200, 201)  # stratified
    assert bool(((coords[:, 2] == 0) | (coords[:, 3] == 0)).all())
    equal = ll.SimplicialComplex(
        [ll.Simplex(a[[0, 1, 2]]), ll.Simplex(a[[0, 1, 3]])], weights="equal"
    )
    coords = equal.sample_coords(1000, generator=generator())
    assert int((coords[:, 2] > 0).sum()) in (499, 500, 501)  # the published code's


def test_among_n_draws_no_simplex_is_off_its_share_by_one():
    g = generator(3)
    for seed in range(40):
        w = vectors(6, size=8, seed=seed)
        made = ll.SimplicialComplex([ll.Simplex(w[[i, i + 1, i + 2]]) for i in range(4)])
        for n in (3, 5, 16):
            coords = made.sample_coords(n, generator=g)
            for share, cell in zip(made.shares().tolist(), made.cells, strict=True):
                inside = (coords[:, list(cell)].sum(1) > 1 - 1e-9).sum()
                assert abs(int(inside) - n * share) < 1


def test_overlapping_simplexes_count_as_often_as_they_occur():
    triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    shifted = triangle + torch.tensor([0.1, 0.1])
    made = ll.SimplicialComplex([ll.Simplex(triangle), ll.Simplex(shifted)])
    assert float(made.log_volume().exp()) == pytest.approx(1.0)  # 1/2 twice


# -- nearest points --------------------------------------------------------------------------------


def test_the_nearest_point_is_the_one_that_least_squares_finds():
    for seed in range(60):
        vertices = 2 + seed % 7
        points = vectors(vertices, torch.float64, size=9, seed=seed)
        w = 0.5 * vectors(1, torch.float64, size=9, seed=1000 + seed)[0]
        if seed % 3 == 0:
            w = points.mean(0)  # inside
        found = nearest((points - w) @ (points - w).T)
        assert bool((found >= 0).all())
        assert float(found.sum()) == pytest.approx(1)
        far = float((found @ points - w).norm())
        heavy = 1e5  # non-negative least squares, with a heavy row for the sum
        system = np.vstack([(points - w).T.numpy(), heavy * np.ones(vertices)])
        expected, _ = scipy.optimize.nnls(system, np.append(np.zeros(9), heavy))
        expected = torch.from_numpy(expected / expected.sum())
        assert far <= float((expected @ points - w).norm()) + 1e-9
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_many_vertices_have_a_nearest_point_too():
    points = vectors(100, torch.float64, size=2000)
    truth = barycentric(1, 100)[0]
    truth[::2] = 0
    truth = truth / truth.sum()
    w = truth @ points
    torch.testing.assert_close(nearest((points - w) @ (points - w).T), truth, rtol=0, atol=1e-9)


@pytest.mark.parametrize("gap", [0.0, 1e-14, 1e-12, 1e-10, 1e-8])
def test_vertices_that_are_nearly_one_have_a_nearest_point(gap):
    for seed in range(20):
        points = vectors(6, torch.float64, size=9, seed=seed)
        points[3] = points[1] + gap * points[2]
        points[5] = points[0] - gap * points[4]
        w = 0.3 * vectors(1, torch.float64, size=9, seed=500 + seed)[0]
        found = nearest((points - w) @ (points - w).T)
        apart = points[[0, 1, 2, 4]]
        expected = nearest((apart - w) @ (apart - w).T)
        far, least = ((c @ p - w).norm() for c, p in ((found, points), (expected, apart)))
        assert float(far) == pytest.approx(float(least), abs=1e-6)
    with pytest.raises(ll.NonFiniteError, match="have no nearest point"):
        nearest(torch.full((2, 2), math.nan).double())


def test_a_simplex_contains_its_points_and_no_others():
    simplex = ll.Simplex(vectors(4))
    inside = simplex(simplex.sample_coords(20, generator=generator()))
    assert simplex.contains(inside).tolist() == [True] * 20
    assert bool(simplex.contains(simplex.anchors[2]))
    beyond = simplex([[1.2, -0.2, 0.0, 0.0]])[0]  # in its flat, outside of it
    assert not bool(simplex.contains(beyond))
    torch.testing.assert_close(simplex.project(beyond), simplex.anchors[0])
    off = inside[0] + 1e-3 * vectors(1, seed=7)[0]
    assert not bool(simplex.contains(off))
    assert bool(simplex.contains(off, tolerance=1e-2))
    back = simplex.project(torch.stack([off, beyond]))
    assert simplex.contains(back).tolist() == [True, True]


def test_weights_are_nearest_to_one_simplex_of_a_complex():
    made = ll.SimplicialComplex.connecting(vectors(2), vectors(2, seed=4))
    for cell, w in enumerate(made.anchors[:2]):
        coords, far = made.coords_of(w + 0.01 * vectors(1, seed=9)[0])
        inside = made.cells[cell]
        assert float(far) < 0.1
        assert float(coords[list(inside)].sum()) == pytest.approx(1)
