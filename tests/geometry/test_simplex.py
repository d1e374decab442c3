"""Simplexes: the contract, and vertices that make none."""

import math

import pytest
import scipy.optimize
import scipy.stats
import torch

import lowland as ll
from tests.geometry.contract import SIZE, ShapeContract, barycentric, vectors


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
