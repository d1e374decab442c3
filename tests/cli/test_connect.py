"""`lowland connect` and `lowland scan` on finished runs, and as a stage of `lowland run`."""

import shutil

import pytest
import torch

import lowland as ll
from lowland.artifacts.places import manifests
from lowland.cli.curve_folder import CurveFolder
from lowland.records import PathResult, SurfaceResult, Table, TrainingLog
from lowland.runs.folder import RunFolder
from tests.cli import shared
from tests.cli.inside import lowland

CONFIG = {
    "model": {"name": "lowland.zoo:ConvNet", "args": {"widths": [6], "classes": 10}},
    "data": {"name": "lowland.zoo:digits", "args": {"train": 0.15, "shift": 1}},
    "methods": ["sgd", "swa", "ensemble"],
    "ensemble": 2,
    "samples": 3,
    "threads": 1,
    "train": {"epochs": 20, "batch_size": 30, "lr": 0.1},
    "average": {"lr": 0.1, "start": 0.5, "every": 1},
}


OPTIONS = ["--kind", "bezier,chain", "--lr", 0.1, "--epochs", 60, "--points", 9, "--align"]


def made(folder, name, *overrides, **changes):
    return shared.made(folder, name, CONFIG | changes, *overrides)


def make(folder):
    path, _ = made(folder, "one")
    code, out, err = lowland("connect", path, *OPTIONS, pictures=True)
    assert code == 0, err
    assert "Polygonal chain" in out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return shared.copy_of(tmp_path_factory, "connect", make)


@pytest.fixture(scope="module")
def run(folder):
    """A run of two annealed networks and an SGD trajectory, joined by both curves."""
    return folder / "one"


def test_curves_stay_lower_than_the_line(run):
    rows = {row["method"]: row for row in Table.load(run / "connect/records/curves.json").rows()}
    assert list(rows) == ["Line", "Line, aligned", "Bezier curve", "Polygonal chain"]
    assert rows["Line, aligned"]["barrier"] < rows["Line"]["barrier"]
    assert rows["Line, aligned"]["length"] < rows["Line"]["length"]
    for title in ("Bezier curve", "Polygonal chain"):
        assert rows[title]["barrier"] < 0.5 * rows["Line"]["barrier"]
        assert rows[title]["length"] > rows["Line"]["length"]


def test_what_it_leaves_is_what_the_library_finds(run):
    joined = CurveFolder.open(run / "connect")
    curve = ll.Shape.load(run / "connect/shapes/bezier.safetensors")
    layout = joined.setup.layout
    ends = [RunFolder(run).load_weights(f"sgd-{i}", layout).weights for i in (0, 1)]
    assert torch.equal(curve.anchors[0], ends[0])
    assert torch.equal(curve.anchors[-1], ends[1])
    found = PathResult.load(run / "connect/records/path-bezier.json")
    expected = joined.setup.surface.evaluate(map(curve.point, found.t))
    assert torch.allclose(found.loss, expected.loss, rtol=1e-5)
    test = joined.setup.surface.evaluate(map(curve.point, found.t), joined.setup.test)
    assert torch.allclose(found.test_error, test.error, rtol=1e-5)
    log = TrainingLog.load(run / "connect/records/training-bezier.json")
    assert len(log.columns["loss"]) == 60
    assert (run / "connect/pictures/path-loss.png").stat().st_size > 10_000


def test_the_same_command_goes_on_and_makes_only_what_is_missing(run, tmp_path):
    there = shutil.copytree(run / "connect", tmp_path / "again")
    places = {manifest.body["name"]: manifest.folder for manifest in manifests(there)}
    shutil.rmtree(places["path/chain"])
    (places["curve/bezier"] / "curve.safetensors").chmod(0o644)
    (places["curve/bezier"] / "curve.safetensors").write_bytes(b"damaged")
    before = (places["curve/chain"] / "curve.safetensors").stat().st_mtime_ns
    again = ["connect", run, *OPTIONS]
    code, out, err = lowland(*again, "--out", there)
    assert code == 0, err
    assert "curve/bezier is built again (curve.safetensors has 7 bytes" in out
    assert (places["curve/chain"] / "curve.safetensors").stat().st_mtime_ns == before
    old, new = (ll.Shape.load(p / "shapes/bezier.safetensors") for p in (run / "connect", there))
    assert torch.equal(old.anchors, new.anchors)
    assert (there / "records/path-chain.json").is_file()
    code, out, err = lowland(
        *again[:3], "bezier", *again[4:], "--epochs", 1, "--bends", 2, "--out", there
    )
    assert code == 0, err
    assert (
        "curve/bezier is built again (fit.epochs: 60 there, 1 now; fit.bends: 1 there, 2 now" in out
    )


def test_a_plane_through_the_ends_and_the_bend(run):
    code, out, err = lowland("scan", run, "--resolution", 9, "--refine", 0, pictures=True)
    assert code == 0, err
    assert "81 of 81 points evaluated" in out
    found = SurfaceResult.load(run / "scan/w0-w1-bend/records/surface.npz")
    joined = CurveFolder.open(run / "connect")
    curve = joined.curves()["bezier"]
    plane = ll.Plane.through(*curve.anchors[[0, 2, 1]])
    i, j = 3, 5
    at = torch.stack([found.x[j], found.y[i]])
    expected = float(joined.setup.surface(plane(at)))
    assert float(found.loss[i, j]) == pytest.approx(expected, rel=1e-4)
    assert set(found.marks) == {"w0", "w1", "bend"}
    assert set(found.curves) == {"Bezier curve", "line"}
    assert found.about["split"] == "training"
    for name in ("loss", "error", "loss-3d"):
        assert (run / f"scan/w0-w1-bend/pictures/{name}.png").stat().st_size > 10_000
    # on to the end at once: everything is in the file
    _, out, _ = lowland("scan", run, "--resolution", 9, "--refine", 0)
    assert "at most" not in out


@pytest.mark.parametrize(
    ("plane", "figures", "extra"),
    [
        ("sgd-0,sgd-1,average-0", {"loss", "error"}, ["--split", "test"]),
        ("sgd-0,average-0", {"loss", "error"}, []),
        ("random", {"loss", "error"}, ["--around", "average-0"]),
        ("pca", {"loss", "error"}, []),
        ("w0,w1,chain.bend", {"loss", "error"}, []),
    ],
)
def test_other_planes(run, plane, figures, extra):
    place = run.parent / plane.replace(",", "-")
    words = ["--plane", plane, "--resolution", 5, "--out", place, *extra]
    drawn = plane in ("pca", "sgd-0,average-0")  # a path on a plane, a line
    code, _, err = lowland("scan", run, *words, pictures=drawn)
    assert code == 0, err
    found = SurfaceResult.load(place / "records/surface.npz")
    assert set(found.metrics) == figures
    assert (found.y is None) == (plane.count(",") == 1)
    if plane == "pca":
        assert found.paths["SGD"]["coords"].shape == (11, 2)
        assert 0 < float(found.explained_variance_ratio.sum()) <= 1
    if plane == "random":
        centre = RunFolder(run).load_weights(
            "average-0", CurveFolder.open(run / "connect").setup.layout
        )
        surface = CurveFolder.open(run / "connect").setup.surface
        assert float(found.loss[2, 2]) == pytest.approx(float(surface(centre.weights)), rel=1e-4)


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
    for plane, (points, drawn) in planes.items():
        code, _, err = lowland("scan", place, "--plane", plane, "--resolution", 2)
        assert code == 0, err
        where = place / "scan" / plane.replace(",", "-")
        found = SurfaceResult.load(where / "records/surface.npz")
        assert list(found.marks) == plane.split(",")
        assert torch.allclose(
            torch.stack(list(found.marks.values())), ll.Plane.through(*points).marks
        )
        assert set(found.curves) == drawn
    code, _, err = lowland("scan", place, "--plane", "bend1,bend2,bend3")
    assert code == 2
    assert "no weights 'bend3'; there are w0, w1, bend, bend1, bend2, bezier.bend, " in err
    assert "chain.bend2, average-0, " in err
    code, _, err = lowland(
        "scan", run, "--plane", "sgd-0,bend2,average-0"
    )  # its one curve is meant
    assert code == 2
    assert "no weights 'bend2'; there are w0, w1, bend, bend1, bezier.bend" in err


def test_a_run_may_be_moved_with_its_curves(run, tmp_path, monkeypatch):
    moved = shutil.copytree(run, tmp_path / "moved [run]")
    monkeypatch.chdir(tmp_path)
    code, out, err = lowland("scan", "moved [run]", "--resolution", 9, "--refine", 0)
    assert code == 0, err
    assert "Results: moved [run]/scan/w0-w1-bend/" in out
    assert CurveFolder.open(moved / "connect").runs[0].folder.path == moved


def test_two_runs_are_joined_and_three_make_a_plane(folder, run):
    others = [made(folder, f"seed{s}", f"seed={s}", methods=["sgd"])[0] for s in (1, 2, 3)]
    options = ["--epochs", 2, "--points", 3]
    code, out, err = lowland("connect", *others[:2], *options)
    assert code == 0, err
    assert (folder / "connect/connect.yaml").is_file()
    assert f"{others[0]}/sgd-0" in out
    code, _, err = lowland("scan", folder / "connect", "--resolution", 5)
    assert code == 0, err
    code, _, err = lowland("scan", *others, "--resolution", 5, "--out", folder / "optima")
    assert code == 0, err
    marks = SurfaceResult.load(folder / "optima/records/surface.npz").marks
    assert list(marks) == ["seed1", "seed2", "seed3"]  # no paths in a picture
    # a name for each run is of that run
    ends = ["--plane", "sgd-0,sgd-0", "--resolution", 2, "--out", folder / "ends"]
    code, _, err = lowland("scan", *others[:2], *ends)
    assert code == 0, err
    for plane, message in (("sgd-0,sgd-0", "one name for all 3 runs"), ("pca", "lies in one run")):
        code, _, err = lowland("scan", *others, "--plane", plane)
        assert code == 2
        assert message in err
    code, _, err = lowland("connect", others[0], *options)
    assert code == 2
    assert "no two annealed networks, but sgd-0" in err


def test_a_stage_of_a_run(folder):
    connect = {"epochs": 5, "points": 5, "resolution": 5, "lr": 0.1}
    path, out = made(folder, "staged", connect=connect)
    assert "Bezier curve" in out
    assert (path / "connect/plane/pictures/loss.png").is_file()
    # a stage may be added to a run that is done; it is no other run
    code, _, err = lowland("run", folder / "staged.yaml", f"out={path}", "connect=null")
    assert code == 0, err
    alone = ["methods=[sgd]", f"out={folder / 'alone'}", "train.epochs=1"]
    code, out, err = lowland("run", folder / "staged.yaml", *alone)
    assert code == 0, err
    assert "No curve: connect joins two networks of the method ensemble" in out
    assert not (folder / "alone/connect").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["connect", "{run}", "--kind", "circle"], "expected 'bezier' or 'chain', got 'circle'"),
        (["connect", "{run}", "--ends", "sgd-0"], "expected two names of weights"),
        (["connect", "{run}", "--ends", "sgd-0,sgd-9"], "no weights 'sgd-9'; there are average-0"),
        (["connect", "{run}", "--ends", "sgd-0,sgd-0", "--out", "{new}"], "are the same weights"),
        (["connect", "{run}", "{run}"], "same seed"),
        (["connect", "{run}", "{run}", "{run}"], "expected one run or two, got 3"),
        (["connect", "{nothing}"], "not a run folder"),
        (["scan", "{run}", "--plane", "sgd-0,sgd-1,sgd-7"], "no weights 'sgd-7'"),
        (["scan", "{run}", "--plane", "sgd-0,sgd-1,sgd-1"], "lie on a line"),
        (["scan", "{run}", "--plane", "a,b,c,d"], "no weights 'a'"),
        (["scan", "{run}", "--split", "validation"], "expected train or test"),
        (["scan", "{run}", "--plane", "pca", "--walk", "swa-3"], "--plane pca"),
    ],
)
def test_bad_input(folder, run, words, message):
    names = {"run": run, "nothing": folder, "new": folder / "new"}
    code, _, err = lowland(*[str(word).format(**names) for word in words])
    assert code == 2, err
    assert message in err, err
    assert not (folder / "new").exists()  # refused before anything is written


def test_curves_of_networks_that_are_gone_are_no_results(folder):
    path, _ = made(folder, "again", methods=["ensemble"])
    options = ["--epochs", 1, "--points", 3]
    code, _, err = lowland("connect", path, *options)
    assert code == 0, err
    keep = shutil.move(path / "connect", folder / "kept")
    shutil.rmtree(path)
    made(folder, "again", "train.lr=0.05", methods=["ensemble"])
    shutil.move(keep, path / "connect")
    code, out, err = lowland("connect", path, *options)
    assert code == 0, err
    assert "curve/bezier is built again (" in out
    assert "other" in out
    code, _, err = lowland("connect", path, *options, "--lr", -1, "--out", folder / "negative")
    assert code == 2
    assert "lr: expected greater than 0, got -1" in err
    assert not (folder / "negative").exists()


def test_another_scan_in_the_same_folder_says_what_changed(run):
    code, _, err = lowland("scan", run, "--plane", "random", "--resolution", 5)
    assert code == 0, err
    code, out, err = lowland("scan", run, "--plane", "random", "--resolution", 7)
    assert code == 0, err
    assert "scan/random/train is built again (grid.resolution: 5 there, 7 now" in out


def test_status_shows_what_was_made_of_a_run(run):
    code, out, err = lowland("status", run)
    assert code == 0, err
    assert "curve/bezier  done" in out
    assert "connect/" in out
