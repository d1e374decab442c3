"""`lowland compare` on finished runs: its metrics are recomputed here from what the runs hold."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import lowland as ll
from lowland.artifacts import Graph
from lowland.artifacts.places import manifests
from lowland.cli.load_runs import load_runs
from lowland.records import Predictive, ShiftCurves, Table
from lowland.runs.methods import method_named
from lowland.runs.results import Results
from lowland.runs.run import Run
from lowland.runs.setup import Setup
from lowland.uncertainty.corruption import STRENGTHS, Normalisation
from tests.cli import shared
from tests.cli.conftest import CONFIG, copy_of_two_runs
from tests.cli.inside import lowland

OWN = """
import torch
from torch import nn
from lowland.zoo import digits

MEAN, STD = [0.3], [0.4]

def model(p=0.5, outputs=10):
    hidden = nn.Linear(64, 12), nn.ReLU(), nn.Dropout(p)
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(12, outputs))

def normalised(**changes):
    found = digits(train=0.1)
    splits = {n: ((x - MEAN[0]) / STD[0], y) for n, (x, y) in found.items()}
    return splits | {"normalise": (MEAN, STD)} | changes

def unsaid():
    return {n: v for n, v in normalised().items() if n != "normalise"}

def wrong():
    return normalised(normalise=(0.5, "no"))

def line():
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))

def rows():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(120, 3, generator=g)
    y = x @ torch.tensor([[1.0], [-0.5], [0.2]]) + 0.3 * torch.randn(120, 1, generator=g)
    return {"train": (x[:60], y[:60]), "validation": (x[60:90], y[60:90]), "test": (x[90:], y[90:])}

def strange():
    return torch.full((40, 1, 8, 8), 0.25)

def far():
    return 30 + torch.randn(50, 3, generator=torch.Generator().manual_seed(1))

def raw():
    return {"test": (torch.full((40, 1, 8, 8), 0.25), torch.zeros(40))}

def blank():
    return torch.full((40, 1, 8, 8), torch.nan)

def colour():
    return torch.zeros(5, 3, 32, 32)
"""


def made(folder, name, *overrides, **changes):
    return shared.made(folder, name, CONFIG | changes, *overrides)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Copies of two runs that differ in their seed, with the module `own` beside them."""
    path = copy_of_two_runs(tmp_path_factory)
    (path / "own.py").write_text(OWN)
    sys.path.insert(0, str(path))
    sys.modules.pop("own", None)
    yield path
    sys.path.remove(str(path))


@pytest.fixture(scope="module")
def compared(folder):
    """What comparing both left, and said."""
    out = folder / "both"
    code, stdout, err = lowland(
        "compare", folder / "r0", folder / "r1", "--out", out, "--examples", 60, "--ood", "noise",
        "--ood", "own:strange", pictures=True,
    )  # fmt: skip
    assert code == 0, err
    return out, stdout


def opened(path):
    """A run's surface, its results, and its test examples."""
    (run,) = load_runs([path])
    setup = Setup(run.config)
    return setup, Results(Run(run.config, setup), path), setup.data["test"]


def row(table, method):
    return next(r for r in table.rows() if r["method"] == method)


def contents(out):
    """The files of a folder that do not depend on time."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
        and path.name not in ("events.jsonl", "timing.json")
        and ".leases" not in path.parts
    }


def built(out):
    """The names of the artifacts that were built, in order."""
    lines = (out / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return [event["artifact"] for event in events if event["event"] == "built"]


METRICS = ("accuracy", "nll", "ece", "brier")


def test_test_metrics_are_means_and_standard_errors_over_runs(folder, compared):
    table = Table.load(compared[0] / "records" / "comparison.json")
    for method, name in (("SGD", "sgd"), ("SWAG", "swag")):
        preds = [Predictive.load(folder / r / "records" / f"{name}.npz") for r in ("r0", "r1")]
        found = row(table, method)
        for metric in METRICS:
            values = np.array([pred.metrics()[metric] for pred in preds])
            assert found[metric] == pytest.approx(values.mean())
            assert found[metric + "_se"] == pytest.approx(abs(values[0] - values[1]) / 2)
        aurc = [ll.selective(pred).aurc for pred in preds]
        assert found["aurc"] == pytest.approx(np.mean(aurc))
    assert f"{found['nll']:.4f}±{found['nll_se']:.4f}" in compared[1]


def test_differences_are_paired(folder, compared):
    table = Table.load(compared[0] / "records" / "differences.json")
    assert table.method[:2] == ["SGD + temperature scaling", "SWAG"]
    assert not [name for name in table.method if "runs" in name]  # what joins runs has one value
    nll = [
        [
            Predictive.load(folder / r / "records" / f"{m}.npz").metrics()["nll"]
            for r in ("r0", "r1")
        ]
        for m in ("swag", "sgd")
    ]
    each = np.subtract(*nll)
    assert row(table, "SWAG")["nll"] == pytest.approx(each.mean())
    assert row(table, "SWAG")["nll_se"] == pytest.approx(abs(each[0] - each[1]) / 2)
    assert "difference to SGD, run by run" in compared[1]


def test_metrics_under_corruption_against_predicting_one_corruption_at_a_time(folder, compared):
    shift = Table.load(compared[0] / "records" / "shift.json")
    comparison = Table.load(compared[0] / "records" / "comparison.json")
    each = {}
    for name in ("r0", "r1"):
        setup, results, (x, y) = opened(folder / name)
        post, _ = results.posterior(method_named("swag"))
        seed = setup.config.seed
        for kind, strength in [("gaussian_noise", 5), ("pixelate", 2)]:
            rows = [(ll.corrupt(x[:60], kind, strength), y[:60])]
            pred = ll.predict(setup.surface, post, rows, samples=3, seed=seed)
            each.setdefault((kind, strength), []).append(pred.metrics())
    for found in shift.rows():
        place = found["kind"], found["strength"]
        if found["method"] == "SWAG" and place in each:
            runs = each.pop(place)
            for metric in METRICS:
                expected = np.mean([one[metric] for one in runs])
                assert found[metric] == pytest.approx(expected, rel=1e-4, abs=1e-6), metric
    assert not each
    mine = [r for r in shift.rows() if r["method"] == "SWAG" and r["strength"] > 0]
    assert len(mine) == 4 * len(STRENGTHS)
    mean = np.mean([r["nll"] for r in mine])
    assert row(comparison, "SWAG")["nll_corrupted"] == pytest.approx(mean)
    curves = ShiftCurves.load(compared[0] / "records" / "shift-swag.json")
    assert float(curves.mean("nll")[1:].mean()) == pytest.approx(mean)
    assert float(curves.curves["contrast"]["nll"][0]) == pytest.approx(
        next(r["nll"] for r in shift.rows() if r["method"] == "SWAG" and r["strength"] == 0)
    )


def test_strange_rows_against_predicting_them(folder, compared):
    table = Table.load(compared[0] / "records" / "ood.json")
    found = {(r["method"], r["set"], r["score"]): r for r in table.rows()}
    expected = []
    for name in ("r0", "r1"):
        setup, results, (x, _) = opened(folder / name)
        post, _ = results.posterior(method_named("swag"))
        options = {"samples": 3, "seed": setup.config.seed}
        inside = results.prediction(method_named("swag"))
        noise = ll.noise_like(x[:60])
        outside = ll.predict(setup.surface, post, [(noise,)], **options)
        expected.append(ll.ood(inside, outside).auroc.tolist())
    means = np.mean(expected, 0)
    scores = ("entropy", "max probability", "mutual information")
    for score, value in zip(scores, means, strict=True):
        assert found["SWAG", "noise", score]["auroc"] == pytest.approx(value, abs=1e-5)
    assert ("SGD", "noise", "mutual information") not in found  # one network has none
    assert ("SWAG", "strange", "entropy") in found
    comparison = Table.load(compared[0] / "records" / "comparison.json")
    assert row(comparison, "SWAG")["auroc_noise"] == pytest.approx(means[0], abs=1e-5)


def test_rows_that_join_runs(folder, compared):
    table = Table.load(compared[0] / "records" / "comparison.json")
    points, swags = [], []
    for name in ("r0", "r1"):
        setup, results, _ = opened(folder / name)
        points.append(results.posterior(method_named("sgd"))[0].point(0))
        swags.append(results.prediction(method_named("swag")))
    pred = ll.predict(setup.surface, ll.Ensemble(points), setup.test)
    found = row(table, "Deep ensemble of 2 runs")
    for metric in METRICS:
        assert found[metric] == pytest.approx(pred.metrics()[metric], rel=1e-4), metric
    assert np.isnan(found["nll_se"])
    assert found["samples"] == 2
    probs = (swags[0].probs + swags[1].probs) / 2
    picked = probs.gather(1, swags[0].targets[:, None]).log().mean()
    found = row(table, "MultiSWAG of 2 runs")
    assert found["nll"] == pytest.approx(-float(picked), rel=1e-5)
    assert found["samples"] == 6
    shift = Table.load(compared[0] / "records" / "shift.json")
    assert [r["nll"] for r in shift.rows() if r["method"] == "MultiSWAG of 2 runs"]


def test_baselines_and_pictures(compared):
    out, stdout = compared
    table = Table.load(out / "records" / "comparison.json")
    assert table.method[:3] == ["SGD", "SGD + temperature scaling", "SWAG"]
    assert "No row for dropout: the network has no dropout." in stdout
    # but for rows whose classes tie, at the temperature of networks that know next to nothing
    tempered = row(table, "SGD + temperature scaling")["accuracy"]
    assert row(table, "SGD")["accuracy"] == pytest.approx(tempered, abs=2e-3)
    names = {p.name for p in (out / "pictures").iterdir()}
    assert names == {"selective.png", "shift-nll.png", "shift-accuracy.png", "shift-ece.png"}
    for picture in (out / "pictures").iterdir():
        assert picture.read_bytes().startswith(b"\x89PNG")
    for line in stdout.splitlines():
        assert len(line) <= 80 or "Results" in line or "lowland" in line
    said = yaml.safe_load((out / "compare.yaml").read_text())
    assert said["seeds"] == [0, 1]


def test_a_second_time_nothing_is_built_and_a_damaged_prediction_again(folder, compared):
    out, stdout = compared
    args = ["compare", folder / "r0", folder / "r1", "--out", out, "--examples", 60]
    args += ["--ood", "noise", "--ood", "own:strange"]
    files = contents(out)
    code, again, err = lowland(*args)
    assert code == 0, err
    assert contents(out) == files
    assert again[again.index("Test data") :] == stdout[stdout.index("Test data") :]
    name = "predictions/seed-0/swag/corrupted/contrast-3"
    (manifest,) = [m for m in manifests(out) if m.body["name"] == name]
    file = manifest.folder / "record.npz"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:100])
    code, again, err = lowland(*args)
    assert code == 0, err
    assert f"{name} is built again" in again
    assert contents(out) == files
    assert built(out)[-1] == name
    assert again[again.index("Test data") :] == stdout[stdout.index("Test data") :]


def test_another_option_builds_what_depends_on_it_alone(folder, tmp_path):
    args = ["compare", folder / "r0", "--out", tmp_path / "out", "--baselines", "none"]
    args += ["--examples", 20, "--kinds", "contrast,gaussian_noise", "--strengths"]
    assert lowland(*args, "1,3")[0] == 0
    before = len(built(tmp_path / "out"))
    code, stdout, err = lowland(*args, "3,4")
    assert code == 0, err
    names = built(tmp_path / "out")[before:]
    assert {name for name in names if name.startswith("predictions/")} == {
        f"predictions/seed-0/{method}/corrupted/{kind}-4"
        for method in ("sgd", "swag")
        for kind in ("contrast", "gaussian_noise")
    }
    assert "metrics/seed-0/swag is built again" in stdout
    assert "predictions/seed-0/swag/corrupted/contrast-1 (no longer)" in stdout
    # another seed draws other noise; a change of contrast has none
    before = len(built(tmp_path / "out"))
    code, stdout, err = lowland(*args, "3,4", "--seed", 1)
    assert code == 0, err
    names = {n for n in built(tmp_path / "out")[before:] if n.startswith("predictions/")}
    assert len(names) == 6
    assert all("gaussian_noise" in name or "ood/noise" in name for name in names)
    assert "corruption.seed: 0 there, 1 now" in stdout
    # fewer sets: what is shown is what was requested
    assert (tmp_path / "out" / "records" / "shift.json").is_file()
    code, _, err = lowland(*args, "3,4", "--kinds", "none")
    assert code == 0, err
    files = {path.name for path in (tmp_path / "out" / "records").iterdir()}
    assert files == {"comparison.json", "ood.json", "selective-sgd.npz", "selective-swag.npz"}


def test_a_stopped_comparison_goes_on_and_ends_with_the_same_bytes(folder, tmp_path, monkeypatch):
    args = ["compare", folder / "r0", "--examples", 20, "--kinds", "contrast,pixelate"]
    assert lowland(*args, "--out", tmp_path / "whole")[0] == 0
    real, calls = Graph._build, []

    def stopping(graph, artifact, bar):
        calls.append(artifact.name)
        if len(calls) == 9:
            raise KeyboardInterrupt
        real(graph, artifact, bar)

    with monkeypatch.context() as patch:
        patch.setattr(Graph, "_build", stopping)
        assert lowland(*args, "--out", tmp_path / "stopped")[0] != 0
    code, stdout, err = lowland(*args, "--out", tmp_path / "stopped")
    assert code == 0, err
    assert "8 of " in stdout
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_status_and_clean_read_the_folder(folder, compared):
    code, stdout, err = lowland("status", compared[0])
    assert code == 0, err
    assert "tables/comparison  done" in stdout
    assert "seed-1/train/sgd-0: fingerprint" in stdout
    code, stdout, err = lowland("clean", compared[0])
    assert code == 0, err
    assert "predictions/seed-0/swag/ood/noise" in stdout


def test_one_run_has_its_tables_in_its_own_folder(folder):
    code, stdout, err = lowland(
        "compare", folder / "r0", "--kinds", "contrast", "--strengths", "1,3", "--ood", "none",
        "--baselines", "none",
    )  # fmt: skip
    assert code == 0, err
    out = folder / "r0" / "compare"
    table = Table.load(out / "records" / "comparison.json")
    assert table.method == ["SGD", "SWAG"]
    assert not [name for name in table.columns if name.endswith("_se") or "auroc" in name]
    shift = Table.load(out / "records" / "shift.json")
    assert sorted(set(shift.strength.tolist())) == [0, 1, 3]
    assert not (out / "records" / "ood.json").exists()
    assert f"Results: {out}/" in stdout.replace("\n", "")
    # the run folder is one to go on with
    code, _, err = lowland("run", folder / "r0.yaml", f"out={folder / 'r0'}", "seed=0")
    assert code == 0, err


# -- networks with dropout, images that are normalised, regression ---------------------------------


@pytest.fixture(scope="module")
def dropped(folder):
    return made(
        folder,
        "dropped",
        "methods=[sgd]",
        model={"name": "own:model"},
        data={"name": "own:normalised"},
    )


def test_dropout_and_normalised_images(folder, dropped):
    code, _, err = lowland(
        "compare", dropped, "--examples", 50, "--kinds", "contrast", "--ood", "own:raw",
        "--baselines", "temperature,dropout",
    )  # fmt: skip
    assert code == 0, err
    out = dropped / "compare" / "records"
    setup, results, (z, y) = opened(dropped)
    table = Table.load(out / "comparison.json")
    assert table.method == ["SGD", "SGD + temperature scaling", "MC dropout"]
    point = results.posterior(method_named("sgd"))[0].point(0)
    pred = ll.mc_dropout(setup.surface, point, setup.test, samples=3, seed=0)
    assert row(table, "MC dropout")["nll"] == pytest.approx(pred.metrics()["nll"])
    # corrupted as pixels, shown to the network as it was trained
    by = Normalisation([0.3], [0.4])
    pixels = ll.corrupt(by.invert(z[:50]), "contrast", 4)
    plain = ll.predict(setup.surface, point, [(by.apply(pixels), y[:50])])
    found = next(
        r
        for r in Table.load(out / "shift.json").rows()
        if r["method"] == "SGD" and r["strength"] == 4
    )
    assert found["nll"] == pytest.approx(plain.metrics()["nll"], rel=1e-4)
    twin = ll.predict(setup.surface, point, [(pixels, y[:50])])
    assert found["nll"] != pytest.approx(twin.metrics()["nll"], rel=1e-2)
    # a data set with a split of its own is normalised as the run's
    raw = by.apply(torch.full((40, 1, 8, 8), 0.25))
    outside = ll.predict(setup.surface, point, [(raw,)])
    auroc = ll.ood(results.prediction(method_named("sgd")), outside).auroc[0]
    assert row(table, "SGD")["auroc_raw"] == pytest.approx(float(auroc), abs=1e-5)


def test_regression(folder):
    runs = [
        made(
            folder,
            f"line{seed}",
            f"seed={seed}",
            model={"name": "own:line"},
            data={"name": "own:rows"},
            task={"name": "lowland:Regression", "args": {"target_mean": 50.0, "target_std": 10.0}},
            train={"epochs": 20, "batch_size": 20, "lr": 0.02},
        )
        for seed in (0, 1)
    ]
    out = folder / "lines"
    code, stdout, err = lowland("compare", *runs, "--out", out, "--ood", "own:far", pictures=True)
    assert code == 0, err
    table = Table.load(out / "records" / "comparison.json")
    assert table.method == ["SGD", "SWAG", "Deep ensemble of 2 runs", "MultiSWAG of 2 runs"]
    assert table.crps_of == ["Gaussian", "mixture", "mixture", "mixture"]
    assert "No corrupted examples: corruptions are for classification" in stdout
    sgd, preds = [], []
    for path in runs:
        _, results, _ = opened(path)
        preds.append(results.prediction(method_named("sgd")))
        sgd.append(ll.scores(preds[-1]))
    found = row(table, "SGD")
    for name in ("crps", "coverage_50", "coverage_90", "coverage_95", "width_90"):
        values = [one[name] for one in sgd]
        assert found[name] == pytest.approx(np.mean(values)), name
        assert found[name + "_se"] == pytest.approx(abs(values[0] - values[1]) / 2)
    mean, variance = (torch.stack([getattr(p, n) for p in preds]) for n in ("mean", "variance"))
    exact = float(ll.crps(preds[0].targets, mean, variance).mean())
    assert row(table, "Deep ensemble of 2 runs")["crps"] == pytest.approx(exact)
    assert 1 < found["crps"] < 20  # in the target's units
    ood = Table.load(out / "records" / "ood.json")
    assert set(ood.score) == {"variance"}


# -- what users get wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["r0", "r2"], ["r2 is not a run folder", "config.yaml"]),
        (["r0", "dropped"], ["other settings", "data.name", "in r0", "in dropped"]),
        (["r0", "r0"], ["have the same seed, 0"]),
        (["r0", "--kinds", "fog"], ["--kinds", "gaussian_noise", "'fog'"]),
        (["r0", "--strengths", "0"], ["--strengths", "1, 2, 3, 4, 5"]),
        (["r0", "--baselines", "magic"], ["--baselines", "temperature, dropout, laplace"]),
        (["r0", "--baselines", "dropout"], ["--baselines dropout", "no dropout"]),
        (["r0", "--ood", "nothing"], ["--ood nothing", "name"]),
        (["r0", "--ood", "none", "--ood", "noise"], ["--ood none", "stands alone", "uniform"]),
        (["r0", "--ood", "own:model"], ["--ood own:model", "TypeError"]),
        (["r0", "--ood", "own:blank"], ["--ood own:blank", "NaN or infinity"]),
        (["r0", "--ood", "own:nothing"], ["own:nothing", "cannot be imported"]),
        (["r0", "--ood", "{name: own:colour"], ["--ood", "not YAML"]),
        (["r0", "--ood", "own:colour"], ["own:colour", "(1, 8, 8)", "(3, 32, 32)"]),
        (["line0", "--kinds", "contrast"], ["--kinds", "for classification"]),
    ],
)
def test_one_sentence_and_exit_code_2(folder, dropped, args, words, monkeypatch, tmp_path):
    if args[0] == "line0" and not (folder / "line0").exists():
        pytest.skip("runs after test_regression")
    monkeypatch.chdir(folder)
    code, _, err = lowland("compare", *args, "--out", tmp_path / "out", "--examples", 20)
    assert code == 2, err
    assert "Traceback" not in err
    for word in words:
        assert word in err.replace("\n", " "), err
    if "--baselines dropout" not in " ".join(args):  # which needs the weights
        assert not (tmp_path / "out").exists(), "something was written before all was checked"


@pytest.mark.parametrize(
    ("out", "words"),
    [("r0", "is not empty, and no earlier comparison"), ("own.py", "is a file")],
)
def test_what_lies_in_the_way_is_left_alone(folder, out, words):
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    code, _, err = lowland("compare", folder / "r0", "--out", folder / out, "--kinds", "none")
    assert code == 2, err
    assert words in err
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_classes_that_a_run_has_not_seen(folder):
    def data(*classes):
        return {"data": "lowland.zoo:digits", "classes": list(classes)}

    seen = {"name": "lowland.zoo:class_subset", "args": data(*range(8))}
    model = {"name": "lowland.zoo:ConvNet", "args": {"widths": [4], "classes": 8}}
    made(folder, "eight", "methods=[sgd]", model=model, data=seen)
    sets = [
        {"name": "lowland.zoo:class_subset", "args": data(8, 9)},
        {"name": "lowland.zoo:resize_to_match", "args": {"data": "lowland.zoo:digits", "size": 8,
                                                "channels": 1}},
    ]  # fmt: skip
    asked = [
        word for one in sets for word in ("--ood", yaml.safe_dump(one, default_flow_style=True))
    ]
    code, _, err = lowland("compare", folder / "eight", "--kinds", "none", *asked)
    assert code == 0, err
    table = list(Table.load(folder / "eight" / "compare" / "records" / "ood.json").rows())
    assert {row["set"] for row in table} == {"digits 8, 9", "digits"}
    auroc = {row["set"]: row["auroc"] for row in table if row["score"] == "entropy"}
    assert auroc["digits 8, 9"] > auroc["digits"]  # of which most rows are its own


def test_runs_of_ensembles_alone(folder):
    few = {"methods": ["ensemble"], "ensemble": 2, "train": CONFIG["train"] | {"epochs": 1}}
    runs = [made(folder, f"ensemble{seed}", f"seed={seed}", **few) for seed in (0, 1)]
    args = ("compare", *runs, "--kinds", "none", "--ood", "none", "--out", folder / "ensembles")
    code, stdout, err = lowland(*args)
    assert code == 0, err
    assert "No row for temperature: the run has no method sgd" in " ".join(stdout.split())
    code, _, err = lowland(*args, "--baselines", "temperature")  # not one that is left out silently
    assert (code, "--baselines temperature: the run has no method sgd" in err) == (2, True)


def test_data_that_cannot_be_corrupted(folder):
    vectors = made(
        folder, "unsaid", "methods=[sgd]", model={"name": "own:model"}, data={"name": "own:unsaid"}
    )
    code, stdout, err = lowland("compare", vectors, "--examples", 20)
    assert code == 0, err
    assert "No corrupted examples" in stdout
    assert "normalise" in stdout
    code, _, err = lowland("compare", vectors, "--examples", 20, "--kinds", "contrast")
    assert code == 2
    assert "in [0, 1]" in err
    wrong = made(
        folder, "misnamed", "methods=[sgd]", model={"name": "own:model"}, data={"name": "own:wrong"}
    )
    code, _, err = lowland("compare", wrong, "--examples", 20)
    assert code == 2
    assert "normalise: expected (means, deviations)" in err


def test_a_run_without_its_weights_or_records(folder, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(folder / "r0", copy)
    (network,) = [m.folder for m in manifests(copy) if m.body["name"] == "train/sgd-0"]
    shutil.move(network, tmp_path / "elsewhere")
    code, _, err = lowland("compare", copy, "--out", tmp_path / "out")
    assert code == 2
    assert "train/sgd-0 is missing; run the `lowland run` command that made" in err
    shutil.move(tmp_path / "elsewhere", network)
    (copy / "records" / "swag.json").unlink()
    code, _, err = lowland("compare", copy, "--out", tmp_path / "out")
    assert code == 2
    assert "is not done" in err
    assert str(Path("records") / "swag.json") in err
