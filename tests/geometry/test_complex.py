"""Simplicial complexes: the contract, and how their simplexes are drawn."""

import pytest
import scipy.optimize
import scipy.stats
import torch

import lowland as ll
from tests.geometry.contract import ShapeContract, barycentric, generator, vectors


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
    with pytest.raises(ll.ConfigError, match="weights: expected one of volume, equal"):
        ll.SimplicialComplex([ll.Simplex([a, b])], weights="even")
    with pytest.raises(ll.ConfigError, match="at least two to connect, got 1"):
        ll.SimplicialComplex.connecting([a])


def test_a_complex_grows_by_a_vertex_that_all_its_simplexes_share():
    modes = vectors(3)
    larger = ll.SimplicialComplex.connecting(modes).grow().grow(seed=1)
    assert larger.cells == ((0, 3, 4), (1, 3, 4), (2, 3, 4))
    assert larger.free == (False, False, False, False, True)
    assert torch.equal(larger.anchors[:3], modes)
    by_hand = ll.SimplicialComplex.connecting(modes, larger.anchors[3:])
    torch.testing.assert_close(by_hand.log_volume(), larger.log_volume())
    assert by_hand.cells == larger.cells
    assert torch.equal(by_hand.anchors, larger.anchors)
    assert by_hand.free == (False, False, False, True, True)


def test_simplexes_are_drawn_in_proportion_to_volume():
    a = torch.zeros(4, 3)
    a[1, 0], a[2, 1], a[3, 2] = 1.0, 1.0, 4.0
    joined_complex = ll.SimplicialComplex([ll.Simplex(a[[0, 1, 2]]), ll.Simplex(a[[0, 1, 3]])])
    assert joined_complex.shares().tolist() == pytest.approx([0.2, 0.8])  # areas of 1/2 and 2
    assert float(joined_complex.log_volume().exp()) == pytest.approx(2.5)
    coords = joined_complex.sample_coords(1000, generator=generator())
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
        joined_complex = ll.SimplicialComplex([ll.Simplex(w[[i, i + 1, i + 2]]) for i in range(4)])
        for n in (3, 5, 16):
            coords = joined_complex.sample_coords(n, generator=g)
            for share, cell in zip(
                joined_complex.shares().tolist(), joined_complex.cells, strict=True
            ):
                inside = (coords[:, list(cell)].sum(1) > 1 - 1e-9).sum()
                assert abs(int(inside) - n * share) < 1


def test_overlapping_simplexes_count_as_often_as_they_occur():
    triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    shifted = triangle + torch.tensor([0.1, 0.1])
    joined_complex = ll.SimplicialComplex([ll.Simplex(triangle), ll.Simplex(shifted)])
    assert float(joined_complex.log_volume().exp()) == pytest.approx(1.0)  # 1/2 twice


def test_weights_are_nearest_to_one_simplex_of_a_complex():
    joined_complex = ll.SimplicialComplex.connecting(vectors(2), vectors(2, seed=4))
    for cell, w in enumerate(joined_complex.anchors[:2]):
        coords, far = joined_complex.coords_of(w + 0.01 * vectors(1, seed=9)[0])
        inside = joined_complex.cells[cell]
        assert float(far) < 0.1
        assert float(coords[list(inside)].sum()) == pytest.approx(1)
