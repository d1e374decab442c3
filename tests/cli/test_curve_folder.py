"""A folder of curves: the names of ends and control points, and what is drawn over a plane."""

import pytest
import torch

from lowland.cli.curve_folder import CurveFolder
from lowland.cli.load_runs import load_runs
from lowland.geometry import Bezier, PolyChain


@pytest.fixture
def folder(finished_runs, tmp_path):
    """Two networks, a Bezier curve of one control point and a chain of two."""
    stage = CurveFolder(tmp_path / "connect", load_runs(finished_runs), ["sgd-0", "sgd-0"])
    Bezier.between(*stage.ends(), bends=1).save(stage.shape("bezier"))
    PolyChain.between(*stage.ends(), bends=2).save(stage.shape("chain"))
    return stage


def test_the_line_is_always_there_and_first(folder):
    curves = folder.curves()
    assert list(curves) == ["line", "bezier", "chain"]
    ends = torch.stack([point.weights for point in folder.ends()])
    assert not torch.equal(*ends)  # of two runs
    for curve in curves.values():
        assert torch.equal(curve.anchors[[0, -1]], ends)
    folder.shape("bezier").unlink()
    assert list(folder.curves()) == ["line", "chain"]


def test_points_are_the_ends_and_the_control_points_of_each_curve(folder):
    points = folder.points()
    curves = folder.curves()
    bend, (first, second) = curves["bezier"].anchors[1], curves["chain"].anchors[1:3]
    expected = {
        "w0": curves["line"].anchors[0],
        "w1": curves["line"].anchors[1],
        "bend": bend,  # of the first curve
        "bend1": bend,
        "bezier.bend": bend,
        "bezier.bend1": bend,
        "chain.bend": first,
        "chain.bend1": first,
        "chain.bend2": second,
    }
    assert points.keys() == expected.keys()
    for name, weights in expected.items():
        assert torch.equal(points[name].weights, weights), name
        assert folder.has_name(name)
    assert set(folder.default_plane()) <= points.keys()


@pytest.mark.parametrize("name", ["w2", "sgd-0", "bend-1", "chain.w0", "center", "v0"])
def test_other_names_are_not_of_a_curve(name):
    assert not CurveFolder.has_name(name)


@pytest.mark.parametrize(
    ("names", "titles"),
    [
        (["w0", "w1", "bend"], {"Bezier curve", "line"}),
        (["w0", "bend", "sgd-0"], {"Bezier curve"}),
        (["chain.bend1", "chain.bend2", "w1"], {"Polygonal chain"}),
        (["chain.bend1", "bezier.bend", "w1"], {"Bezier curve", "Polygonal chain"}),
    ],
)
def test_a_plane_shows_the_curves_whose_control_points_it_names(folder, names, titles):
    assert folder.overlays(names).keys() == titles
