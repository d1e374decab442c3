"""`lowland scan`: planes and lines through networks, curves, iterates, and random directions."""

import shutil

import pytest
import torch

import lowland as ll
from lowland.cli.curve_folder import CurveFolder
from lowland.cli.load_runs import load_runs
from lowland.cli.scan import ScanOptions, make_view
from lowland.errors import ConfigError
from lowland.geometry import Line
from lowland.records import SurfaceResult
from lowland.runs.folder import RunFolder
from tests.cli.inside import lowland


@pytest.fixture(scope="module")
def run(connected_run):
    return connected_run


def test_a_plane_through_the_ends_and_the_bend(run):
    code, out, err = lowland("scan", run, "--resolution", 9, "--refine", 0, pictures=True)
    assert code == 0, err
    assert "81 of 81 points evaluated" in out
    result = SurfaceResult.load(run / "scan/w0-w1-bend/records/surface.npz")
    stage = CurveFolder.open(run / "connect")
    curve = stage.curves()["bezier"]
    plane = ll.Plane.through(*curve.anchors[[0, 2, 1]])
    i, j = 3, 5
    at = torch.stack([result.x[j], result.y[i]])
    expected = float(stage.setup.surface(plane(at)))
    assert float(result.loss[i, j]) == pytest.approx(expected, rel=1e-4)
    assert set(result.marks) == {"w0", "w1", "bend"}
    assert set(result.curves) == {"Bezier curve", "line"}
    assert result.about["split"] == "training"
    for name in ("loss", "error", "loss-3d"):
        assert (run / f"scan/w0-w1-bend/pictures/{name}.png").stat().st_size > 10_000
    # on to the end at once: everything is in the file
    _, out, _ = lowland("scan", run, "--resolution", 9, "--refine", 0)
    assert "at most" not in out


@pytest.mark.parametrize(
    ("plane", "metrics", "extra"),
    [
        ("sgd-0,sgd-1,average-0", {"loss", "error"}, ["--split", "test"]),
        ("sgd-0,average-0", {"loss", "error"}, []),
        ("random", {"loss", "error"}, ["--around", "average-0"]),
        ("pca", {"loss", "error"}, []),
        ("w0,w1,chain.bend", {"loss", "error"}, []),
    ],
)
def test_other_planes(run, plane, metrics, extra):
    place = run.parent / plane.replace(",", "-")
    words = ["--plane", plane, "--resolution", 5, "--out", place, *extra]
    pictures = plane in ("pca", "sgd-0,average-0")  # a path on a plane, a line
    code, _, err = lowland("scan", run, *words, pictures=pictures)
    assert code == 0, err
    result = SurfaceResult.load(place / "records/surface.npz")
    assert set(result.metrics) == metrics
    assert (result.y is None) == (plane.count(",") == 1)
    if plane == "pca":
        assert result.paths["SGD"]["coords"].shape == (11, 2)
        assert 0 < float(result.explained_variance_ratio.sum()) <= 1
    if plane == "random":
        centre = RunFolder(run).load_weights(
            "average-0", CurveFolder.open(run / "connect").setup.layout
        )
        surface = CurveFolder.open(run / "connect").setup.surface
        assert float(result.loss[2, 2]) == pytest.approx(float(surface(centre.weights)), rel=1e-4)


def test_every_bend_has_a_name(run):
    place = run.parent / "two-bends"
    short = ["--bends", 2, "--epochs", 1, "--points", 3]
    code, _, err = lowland("connect", run, "--kind", "bezier,chain", *short, "--out", place)
    assert code == 0, err
    curves = CurveFolder.open(place).curves()
    planes = {
        "bend1,w0,bend2": (curves["bezier"].anchors[[1, 0, 2]], {"Bezier curve"}),
        "w0,w1,bend": (curves["bezier"].anchors[[0, 3, 1]], {"Bezier curve", "line"}),
        "w0,chain.bend2,w1": (curves["chain"].anchors[[0, 2, 3]], {"Polygonal chain", "line"}),
        "bezier.bend1,w0,chain.bend1": (
            torch.stack([curves["bezier"].anchors[1], *curves["chain"].anchors[:2]]),
            {"Bezier curve", "Polygonal chain"},
        ),
    }
    for plane, (points, titles) in planes.items():
        code, _, err = lowland("scan", place, "--plane", plane, "--resolution", 2)
        assert code == 0, err
        where = place / "scan" / plane.replace(",", "-")
        result = SurfaceResult.load(where / "records/surface.npz")
        assert list(result.marks) == plane.split(",")
        assert torch.allclose(
            torch.stack(list(result.marks.values())), ll.Plane.through(*points).marks
        )
        assert set(result.curves) == titles
    code, _, err = lowland("scan", place, "--plane", "bend1,bend2,bend3")
    assert code == 2
    assert "no weights 'bend3'; there are w0, w1, bend, bend1, bend2, bezier.bend, " in err
    assert "chain.bend2, average-0, " in err
    code, _, err = lowland("scan", run, "--plane", "sgd-0,bend2,average-0")  # its one curve's
    assert code == 2
    assert "no weights 'bend2'; there are w0, w1, bend, bend1, bezier.bend" in err


def test_a_run_may_be_moved_with_its_curves(run, tmp_path, monkeypatch):
    moved = shutil.copytree(run, tmp_path / "moved [run]")
    monkeypatch.chdir(tmp_path)
    code, out, err = lowland("scan", "moved [run]", "--resolution", 9, "--refine", 0)
    assert code == 0, err
    assert "Results: moved [run]/scan/w0-w1-bend/" in out
    assert CurveFolder.open(moved / "connect").runs[0].folder.path == moved


def test_another_scan_in_the_same_folder_shows_what_changed(run):
    code, _, err = lowland("scan", run, "--plane", "random", "--resolution", 5)
    assert code == 0, err
    code, out, err = lowland("scan", run, "--plane", "random", "--resolution", 7)
    assert code == 0, err
    assert "scan/random/train is built again (grid.resolution: 5 there, 7 now" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scan", "{run}", "--plane", "sgd-0,sgd-1,sgd-7"], "no weights 'sgd-7'"),
        (["scan", "{run}", "--plane", "sgd-0,sgd-1,sgd-1"], "lie on a line"),
        (["scan", "{run}", "--plane", "a,b,c,d"], "no weights 'a'"),
        (["scan", "{run}", "--split", "validation"], "--split: expected 'train' or 'test'"),
        (["scan", "{run}", "--plane", "pca", "--trajectory", "swa-3"], "--plane pca"),
    ],
)
def test_bad_input(run, words, message):
    code, _, err = lowland(*[str(word).format(run=run) for word in words])
    assert code == 2, err
    assert message in err, err


def test_a_folder_of_something_else_is_left_alone(run, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    code, _, err = lowland("scan", run, "--plane", "sgd-0,sgd-1", "--out", tmp_path)
    assert code == 2
    assert "is not empty, and no folder of a scan" in err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_one_name_for_several_runs_is_a_weight_of_each(finished_runs):
    runs = load_runs(finished_runs)
    for names in (["sgd-0"], ["sgd-0", "sgd-0"], []):
        view = make_view(None, runs, ScanOptions(plane=names))
        assert isinstance(view.shape, Line)
        assert view.files == [(path, "weights/sgd-0.safetensors") for path in finished_runs]
        for run, weights in zip(finished_runs, view.shape.anchors, strict=True):
            expected = RunFolder(run).load_weights("sgd-0", view.setup.layout)
            assert torch.equal(weights, expected.weights)
    with pytest.raises(ConfigError, match="expected one name for all 2 runs, or one for each"):
        make_view(None, runs, ScanOptions(plane=["sgd-0", "sgd-0", "average-0"]))


def test_the_files_of_a_view_are_those_from_which_it_was_read(finished_runs):
    runs = load_runs(finished_runs[:1])
    names = {
        "random": ["weights/average-0.safetensors"],
        "pca": ["trajectory/swa-0"],
        "sgd-0,average-0": ["weights/sgd-0.safetensors", "weights/average-0.safetensors"],
    }
    for plane, files in names.items():
        view = make_view(None, runs, ScanOptions(plane=plane.split(","), around="average-0"))
        assert view.files == [(finished_runs[0], file) for file in files]
        assert view.name == plane.replace(",", "-")
