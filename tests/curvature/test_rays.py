import pytest
import torch

import lowland as ll
from lowland.curvature.rays import RandomRays, rays_of
from lowland.errors import ConfigError, LayoutError, NonFiniteError
from tests.curvature.nets import relu_net, surface_of


def of(directions, normalise="filter"):
    surface, point = surface_of(relu_net())
    return rays_of(directions, surface, normalise=normalise, seed=0), surface, point.weights


def test_random_rays_are_the_directions_of_their_numbers():
    rays, surface, w = of(3)
    expected = ll.directions(surface, w, n=3)
    assert len(rays) == 3
    assert all(torch.equal(rays.direction(i, w), expected[i]) for i in range(3))
    assert len(rays.first()) == 1
    assert torch.equal(rays.first().direction(0, w), expected[0])


def test_plain_rays_have_length_one():
    rays, surface, w = of(2, normalise=None)
    assert isinstance(rays, RandomRays)
    assert rays.name == "plain"
    expected = ll.directions(surface, w, n=2, normalise=None)[1]
    torch.testing.assert_close(rays.direction(1, w), expected / expected.norm())


def test_vectors_subspaces_and_swag_are_taken_as_they_are():
    surface, point = surface_of(relu_net())
    w = point.weights
    rows = torch.randn(2, len(w))
    for directions in (rows, ll.Subspace(w, rows)):
        rays, *_ = of(directions)
        assert (rays.name, len(rays)) == ("given", 2)
        assert torch.equal(rays.direction(1, w), rows[1])
    assert len(of(rows[0])[0]) == 1
    swag = ll.SWAG(surface.layout, rank=10)
    for _ in range(10):
        swag.update(w + torch.randn(len(w)))
    rays, *_ = of(swag)
    expected = ll.Subspace.pca(swag).basis
    assert all(torch.equal(rays.direction(i, w), expected[i]) for i in range(5))


def test_what_is_no_direction_raises():
    for bad in (0, 1.5, "ten", torch.zeros(0, 45), torch.zeros(1, 1, 45)):
        with pytest.raises(ConfigError, match="directions: expected"):
            of(bad)
    surface, point = surface_of(relu_net())
    without = ll.spectrum(surface, point, top=1, probes=1, steps=1)
    with pytest.raises(ConfigError, match="eigenvectors=True"):
        of(without)
    with pytest.raises(LayoutError, match="expected"):
        of(torch.zeros(2, 4))
    size = of(1)[1].layout.size
    with pytest.raises(NonFiniteError, match="the directions"):
        of(torch.full((2, size), torch.nan))
