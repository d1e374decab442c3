"""Volumes of simplexes against closed forms; what the published code got wrong."""

import math

import pytest
import torch

import lowland as ll
from tests.geometry.contract import generator


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


def test_a_hundred_vertices_of_many_parameters():
    anchors, log = regular(100, 300_000, edge=2.0)
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


def test_a_slender_simplex_has_its_volume():
    anchors = torch.zeros(3, 10, dtype=torch.float64)
    anchors[1, 0], anchors[2, 0], anchors[2, 1] = 1.0, 0.5, 1e-5
    assert float(ll.Simplex(anchors).log_volume()) == pytest.approx(math.log(0.5e-5), abs=1e-7)
