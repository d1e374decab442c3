"""`lowland connect` on finished runs, and as a stage of `lowland run`."""

import shutil

import pytest
import torch

import lowland as ll
from lowland.artifacts.places import manifests
from lowland.cli.curve_folder import CurveFolder
from lowland.records import PathResult, SurfaceResult, Table, TrainingLog
from lowland.runs.folder import RunFolder
from tests.cli import shared
from tests.cli.conftest import CURVES, CURVES_CONFIG
from tests.cli.inside import lowland


def made(folder, name, *overrides, **changes):
    return shared.made(folder, name, CURVES_CONFIG | changes, *overrides)


@pytest.fixture(scope="module")
def run(connected_run):
    return connected_run


@pytest.fixture(scope="module")
def folder(run):
    """Where the run lies."""
    return run.parent


def test_curves_stay_lower_than_the_line(run):
    rows = {row["method"]: row for row in Table.load(run / "connect/records/curves.json").rows()}
    assert list(rows) == ["Line", "Line, aligned", "Bezier curve", "Polygonal chain"]
    assert rows["Line, aligned"]["barrier"] < rows["Line"]["barrier"]
    assert rows["Line, aligned"]["length"] < rows["Line"]["length"]
    for title in ("Bezier curve", "Polygonal chain"):
        assert rows[title]["barrier"] < 0.5 * rows["Line"]["barrier"]
        assert rows[title]["length"] > rows["Line"]["length"]


def test_what_it_leaves_is_what_the_library_finds(run):
    stage = CurveFolder.open(run / "connect")
    curve = ll.Shape.load(run / "connect/shapes/bezier.safetensors")
    layout = stage.setup.layout
    ends = [RunFolder(run).load_weights(f"sgd-{i}", layout).weights for i in (0, 1)]
    assert torch.equal(curve.anchors[0], ends[0])
    assert torch.equal(curve.anchors[-1], ends[1])
    result = PathResult.load(run / "connect/records/path-bezier.json")
    expected = stage.setup.surface.evaluate(map(curve.point, result.t))
    assert torch.allclose(result.loss, expected.loss, rtol=1e-5)
    test = stage.setup.surface.evaluate(map(curve.point, result.t), stage.setup.test)
    assert torch.allclose(result.test_error, test.error, rtol=1e-5)
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
    again = ["connect", run, *CURVES]
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


def test_status_shows_what_was_made_of_a_run(run):
    code, out, err = lowland("status", run)
    assert code == 0, err
    assert "curve/bezier  done" in out
    assert "connect/" in out
