"""What simplexes and complexes share: growing, drawing, what they contain."""

import itertools
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

import lowland as ll
from tests.geometry.contract import generator, vectors


@pytest.mark.parametrize("shape", ["simplex", "complex"])
def test_the_gradient_of_the_volume_by_the_inner_products_is_autograds(shape):
    w = vectors(5, torch.float64)
    simplexes = (
        ll.Simplex(w) if shape == "simplex" else ll.SimplicialComplex.connecting(w[:3], w[3:])
    )
    leaf = simplexes.anchors.clone().requires_grad_()
    total = []
    for cell in simplexes.cells:
        edges = leaf[list(cell[1:])] - leaf[cell[0]]
        total.append(0.5 * torch.logdet(edges @ edges.T) - math.lgamma(len(cell)))
    expected = torch.logsumexp(torch.stack(total), 0)
    expected.backward()
    gram = simplexes.seen().requires_grad_()
    value = simplexes.log_volume(gram)
    (by,) = torch.autograd.grad(value, gram)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close((by + by.T) @ simplexes.anchors, leaf.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("vertices", [1, 2, 5])
def test_a_new_vertex_stands_above_the_centroid(vertices, dtype):
    w = vectors(vertices, dtype, size=400) + 3
    simplex = ll.Simplex(w)
    larger = simplex.grow(jitter=0.05, seed=2)
    assert torch.equal(larger.anchors[:-1], w)
    assert larger.free == (False,) * vertices + (True,)
    assert torch.equal(larger.anchors, simplex.grow(jitter=0.05, seed=2).anchors)
    assert not torch.equal(larger.anchors, simplex.grow(jitter=0.05, seed=3).anchors)
    pairs = list(itertools.combinations(w.double(), 2))
    reach = np.mean([float((a - b).norm()) for a, b in pairs]) if pairs else float(w.norm())
    up = larger.anchors[-1].double() - w.double().mean(0)
    assert float(up.norm()) == pytest.approx(0.05 * reach, rel=1e-4)
    edges = w[1:].double() - w[0].double()
    if len(edges):
        cosines = (edges @ up) / edges.norm(dim=1) / up.norm()
        assert float(cosines.abs().max()) < (1e-4 if dtype == torch.float32 else 1e-12)
    assert math.isfinite(float(larger.log_volume()))


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
