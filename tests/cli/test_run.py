"""`lowland run` as its users run it: in a process that is stopped anywhere, and run again."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lowland.records import Predictive, Table
from lowland.runs.config import read_config
from lowland.runs.setup import Setup
from lowland.zoo import ConvNet, digits
from tests.cli.forked import lowland as forked
from tests.cli.inside import lowland as inside
from tests.cli.shared import copy_of, process

CONFIG = {
    "model": {"name": "lowland.zoo:ConvNet", "args": {"widths": [4], "classes": 10}},
    "data": {"name": "lowland.zoo:digits", "args": {"train": 0.1, "shift": 1}},
    "methods": ["sgd", "ema", "swag", "fge"],
    "samples": 3,
    "threads": 1,
    "train": {"epochs": 4, "batch_size": 30, "lr": 0.1},
    "average": {"lr": 0.1, "start": 0.5, "every": 0.5, "rank": 2, "scales": [0.5, 1.0]},
    "fge": {"cycle": 1.0},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """A run that nobody stopped, and what it printed."""

    def make(folder):
        done = process("run", config, f"out={folder / 'whole'}")
        assert done.returncode == 0, done.stderr
        (folder / "stdout.txt").write_text(done.stdout.replace(str(folder), "FOLDER"))

    folder = copy_of(tmp_path_factory, "whole", make)
    stdout = (folder / "stdout.txt").read_text()
    return folder / "whole", stdout.replace("FOLDER", str(folder))


def test_threads_are_chosen_for_the_step_that_is_trained(config, monkeypatch):
    """Timed in float32, a step in bfloat16 looks three times as large as it is."""
    monkeypatch.setattr("lowland.runs.setup.best_threads", lambda *_, **options: options)
    changes = ["threads=auto", "autocast=bfloat16", "channels_last=true"]
    found = Setup(read_config(config, changes)).threads()
    assert found == {"autocast": torch.bfloat16, "channels_last": True}


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compiled_training_ends_where_eager_training_does(config, finished, tmp_path):
    words = ["compile=true", "methods=[sgd]", f"out={tmp_path / 'a'}"]
    code, _, stderr = forked("run", config, *words, folder=tmp_path)
    assert code == 0, stderr
    eager, compiled = weights(finished[0]), weights(tmp_path / "a")
    for key, value in compiled["sgd-0.safetensors"].items():
        torch.testing.assert_close(value, eager["sgd-0.safetensors"][key], rtol=1e-3, atol=1e-4)


def weights(folder):
    files = sorted((folder / "weights").glob("*.safetensors"))
    return {file.name: load_file(file) for file in files}


def assert_same_weights(a, b):
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].keys() == second[name].keys()
        for key in first[name]:
            assert torch.equal(first[name][key], second[name][key]), (name, key)


def test_a_run_leaves_a_plain_folder_and_prints_its_place(finished):
    out, stdout = finished
    assert {p.name for p in out.iterdir()} >= {
        "config.yaml",
        "trajectory",
        "weights",
        "records",
        "pictures",
        "events.jsonl",
    }
    assert str(out) in stdout.replace("\n", "")
    ran = yaml.safe_load((out / "config.yaml").read_text())
    assert json.loads((out / "plan.json").read_text())["threads"] == 1
    assert set(ran["environment"]["versions"]) == {"lowland", "torch", "numpy"}
    for picture in (out / "pictures").iterdir():
        assert picture.read_bytes().startswith(b"\x89PNG"), picture
    pictures = {picture.name for picture in (out / "pictures").iterdir()}
    assert pictures >= {"cycles-fge.png", "nll-by-samples.png", "training.png"}
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "done"
    assert not list(out.rglob(".*.tmp"))


def test_its_weights_load_as_plain_state_dicts(finished):
    model = ConvNet(widths=[4], classes=10)
    files = sorted((finished[0] / "weights").glob("*.safetensors"))
    assert [f.stem for f in files] == ["average-0", "ema-0", "fge-0", "sgd-0", "swa-0"]
    for file in files:
        model.load_state_dict(load_file(file))  # strict, BatchNorm statistics included
    model.load_state_dict(load_file(finished[0] / "weights" / "ema-0.safetensors"))
    x, y = digits(train=0.1)["test"]
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model.eval()(x), y)
    table = Table.load(finished[0] / "records" / "comparison.json")
    ema = table.method.index("EMA")
    assert float(loss) == pytest.approx(float(table.nll[ema]), rel=1e-4)


def test_a_configuration_with_fewer_keys_goes_on(config, finished, tmp_path):
    copy = tmp_path / "older[bold]"  # no markup
    shutil.copytree(finished[0], copy)
    body = yaml.safe_load((copy / "config.yaml").read_text())
    for key in ("compile", "repeat"):
        del body["settings"][key]
    (copy / "config.yaml").write_text(yaml.safe_dump(body))
    code, stdout, stderr = inside("run", config, f"out={copy}")
    assert code == 0, stderr
    assert "artifacts to build" not in stdout
    assert str(copy) in stdout.replace("\n", "")


def test_the_table_is_what_the_records_say(finished):
    out, stdout = finished
    table = Table.load(out / "records" / "comparison.json")
    assert table.method == ["SGD", "EMA", "SWAG", "FGE ensemble"]
    for i, name in enumerate(["sgd", "ema", "swag", "fge"]):
        pred = Predictive.load(out / "records" / f"{name}.npz")
        assert pred.metrics()["nll"] == pytest.approx(float(table.nll[i]))
        # recomputed from the probabilities and targets that the record keeps
        picked = pred.probs.gather(1, pred.targets[:, None]).log().mean()
        assert float(table.nll[i]) == pytest.approx(-float(picked), rel=1e-4)
        assert f"{float(table.nll[i]):.4f}" in stdout
    assert table.samples.tolist() == [1, 1, 3, 2]
    assert table.epochs.tolist() == [4, 4, 4, 4]
    assert not torch.isnan(table.scale[2])


def test_the_same_command_again_only_shows_the_table(finished, config):
    out, stdout = finished
    before = {p: p.stat().st_mtime_ns for p in (out / "weights").iterdir()}
    code, again, stderr = inside("run", config, f"out={out}")
    assert code == 0, stderr
    assert {p: p.stat().st_mtime_ns for p in (out / "weights").iterdir()} == before
    tail = stdout[stdout.index("Test data") :]
    assert again[again.index("Test data") :] == tail


STOPS = [
    ("step", 9, "SIGKILL"),  # in the middle of an epoch of the first network
    ("step", 40, "SIGKILL"),  # in the walk, between iterates
    ("before-replace", 5, "SIGKILL"),  # files that are written but have not taken their place
    ("before-replace", 13, "SIGKILL"),  # all iterates of the walk, and its first checkpoint alone
    ("before-replace", 15, "SIGKILL"),
    ("after-replace", 9, "SIGKILL"),  # an iterate's file without its line in the journal
    ("step", 55, "SIGINT"),
]


# every step and every file of a run, up to its comparison, the 33rd file: an hour
EVERYWHERE = [
    pytest.param(event, number, "SIGKILL", marks=pytest.mark.soak)
    for event, last in [("step", 60), ("before-replace", 33), ("after-replace", 32)]
    for number in range(1, last + 1)
]


@pytest.mark.parametrize(("event", "number", "how"), STOPS + EVERYWHERE)
def test_stopped_and_started_again_it_ends_with_the_same_bits(
    finished, config, tmp_path, event, number, how
):
    out = tmp_path / "stopped"
    stop = (event, number, how)
    code, _, stderr = forked("run", config, f"out={out}", event=stop, folder=tmp_path)
    if how == "SIGINT":
        assert code == 130
        assert "run the same command again" in stderr
    else:
        assert code == -9
    assert not (out / "records" / "comparison.json").exists(), "it was stopped too late to tell"
    code, _, stderr = inside("run", config, f"out={out}")
    assert code == 0, stderr
    assert_same_weights(out, finished[0])


def test_the_comparison_of_weights_can_fail(finished, config, tmp_path):
    code, _, stderr = inside("run", config, f"out={tmp_path / 'other'}", "seed=1", "methods=[sgd]")
    assert code == 0, stderr
    with pytest.raises(AssertionError):
        assert_same_weights(tmp_path / "other", finished[0])


def test_the_example_of_a_users_own_model_runs_from_its_folder(tmp_path):
    example = Path(__file__).parents[2] / "examples" / "own_model"
    words = [f"out={tmp_path / 'run'}", "train.epochs=4", "samples=4"]
    code, stdout, stderr = forked("run", "config.yaml", *words, folder=tmp_path, cwd=example)
    assert code == 0, stderr
    assert "MultiSWAG of 3" in stdout
