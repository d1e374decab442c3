"""A folder of simplexes: the names of their vertices, and the edges that a plane shows."""

import pytest
import torch

from lowland.cli.load_runs import load_runs
from lowland.cli.simplex_folder import COMPLEX, SimplexFolder
from lowland.geometry import Simplex, SimplicialComplex


@pytest.fixture
def folder(finished_runs, tmp_path):
    """A folder of two networks, without shapes."""
    return SimplexFolder(tmp_path / "simplex", load_runs(finished_runs), ["sgd-0", "sgd-0"])


def vertices(folder, number):
    """Some vertices around the first network."""
    w = folder.weights[0].weights
    noise = torch.randn(number, len(w), generator=torch.Generator().manual_seed(0))
    return w + noise


def test_vertices_of_the_first_simplex_have_the_short_names(folder):
    first, second = vertices(folder, 5).split([3, 2])
    Simplex(first).save(folder.shape("simplex-0"))
    Simplex(second).save(folder.shape("simplex-1"))
    assert list(folder.shapes()) == ["simplex-0", "simplex-1"]
    points = folder.points()
    expected = {f"v{i}": row for i, row in enumerate(first)}
    expected |= {f"s0.v{i}": row for i, row in enumerate(first)}
    expected |= {f"s1.v{i}": row for i, row in enumerate(second)}
    assert points.keys() == expected.keys()
    for name, weights in expected.items():
        assert torch.equal(points[name].weights, weights), name
        assert folder.has_name(name)
    assert not folder.has_name("sgd-0")
    assert not folder.has_name("s1.w0")


def test_a_plane_shows_the_edges_of_its_simplex(folder):
    first, second = vertices(folder, 6).split(3)
    Simplex(first).save(folder.shape("simplex-0"))
    Simplex(second).save(folder.shape("simplex-1"))
    closed = [0, 1, 2, 0]
    assert torch.equal(folder.overlays(["v0", "v1", "v2"])["simplex"].anchors, first[closed])
    names = ["s1.v0", "s1.v1", "s1.v2"]
    assert torch.equal(folder.overlays(names)["simplex"].anchors, second[closed])
    assert folder.overlays(["v0", "v1", "s1.v2"]) == {}  # of two simplexes
    assert folder.overlays(["v0", "v1", "sgd-0"]) == {}


def test_a_complex_has_no_edge_between_its_networks(folder):
    anchors = vertices(folder, 4)
    simplexes = [Simplex(anchors[[0, 2, 3]]), Simplex(anchors[[1, 2, 3]])]
    SimplicialComplex(simplexes).save(folder.shape(COMPLEX))
    order = [0, 2, 3, 1]  # of the vertices as they come
    points = folder.points()
    for i, row in enumerate(anchors[order]):
        assert torch.equal(points[f"v{i}"].weights, row)
    line = folder.overlays(["v0", "v3", "v1"])["simplex"]  # v0 and v3 are in no simplex together
    assert torch.equal(line.anchors, anchors[[0, 2, 1]])
