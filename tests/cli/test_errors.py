"""What users get wrong: one sentence, exit code 2, and nothing on disk harmed."""

import json
import shutil
import sys

import pytest
import torch
import yaml

from lowland.artifacts.places import leases_of, manifests
from lowland.cli import main
from lowland.cli.load_runs import load_runs
from lowland.runs.methods import method_named
from lowland.runs.results import Results
from lowland.runs.run import Run
from lowland.runs.setup import Setup
from tests.cli.inside import lowland
from tests.cli.test_run import CONFIG


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Calls the command line in this process; gives exit code and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*args, **changes):
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(CONFIG | changes))
        code, _, err = lowland("run", path, *args)
        return code, err

    return call


@pytest.mark.parametrize(
    ("args", "changes", "words"),
    [
        (["train.epoch=3"], {}, ["train.epoch: there is no such key", "did you mean epochs"]),
        (["sead=3"], {}, ["sead: there is no such key", "did you mean seed"]),
        (["train.lr=-1"], {}, ["train.lr", "greater than 0"]),
        (["train.epochs=many"], {}, ["train.epochs", "integer"]),
        (["methods=[swagg]"], {}, ["methods", "swagg"]),
        (["seed"], {}, ["'seed'", "key=value"]),
        (["model.name=nowhere.nothing:net"], {}, ["nowhere.nothing:net", "cannot be imported"]),
        (["model.name=lowland.zoo:Nothing"], {}, ["lowland.zoo:Nothing", "cannot be imported"]),
        (["model.name=lowland.zoo"], {}, ["model.name"]),
        (["model.args.width=3"], {}, ["lowland.zoo:ConvNet", "width"]),
        (["data.name=builtins:list", "data.args={}"], {}, ["train, validation and test"]),
        (["model.name=builtins:dict", "model.args={}"], {}, ["expected an nn.Module, got dict"]),
        (["train.lr=1e8"], {}, ["the loss is", "epoch 1", "lower the learning rate"]),
        (["model.args.classes=5"], {}, ["train", "labels out of range", "0 to 4"]),
        (["train.epochs={"], {}, ["train.epochs={", "not YAML"]),
        (["task=guessing"], {}, ["'classification'", "or {name: package.module:callable"]),
        (["task={nam: 1}"], {}, ["task.name: is missing", "task.nam", "did you mean name"]),
        (["threads=0"], {}, ["threads", "greater than or equal to 1 or 'auto'"]),
        (["seed=99999999999999999999"], {}, ["seed", "less than"]),
        (["fge.low=0.9"], {}, ["fge", "low <= high"]),
        (["average.scales=[-1]"], {}, ["average.scales.0", "greater than or equal to 0"]),
        (["device=abacus"], {}, ["device: abacus", "cannot be used"]),
        (["average.every=9"], {}, ["SWAG needs 2 iterates", "gets 0", "train longer"]),
        (["average.start=0.9"], {}, ["SWAG needs 2 iterates", "gets 1"]),
        (
            ["fge.cycle=9"],
            {},
            ["FGE ensemble", "first would be collected after step", "the run has"],
        ),
        (["methods=[sgd,sgd]"], {}, ["methods", "each of them once"]),
        (["methods=[]"], {}, ["methods", "at least one method"]),
        (["model.name=lowland.zoo"], {}, ["model.name: expected package.module:callable, got"]),
        (["threads=99999"], {}, ["threads", "less than or equal to 1024"]),
        (["train.weight_decay=.inf"], {}, ["train.weight_decay", "finite"]),
    ],
)
def test_one_sentence_and_exit_code_2(run, args, changes, words):
    code, err = run("out=runs/x", *args, **changes)
    assert code == 2, err
    assert "Traceback" not in err
    for word in words:
        assert word in err


OWN = """
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

x, y = torch.zeros(12, 4), torch.zeros(12, dtype=torch.long)

def model(*, inputs=4, width=0):
    norm = [torch.nn.Linear(inputs, 3), torch.nn.BatchNorm1d(3)] if width else []
    return torch.nn.Sequential(*norm, torch.nn.Linear(3 if width else inputs, 2))

def splits(**changes):
    return {"train": (x, y), "validation": (x, y), "test": (x, y)} | changes

def missing():
    return open("/nowhere/rows.csv")

def iterator():
    return splits(test=iter([(x, y)]))

def empty():
    return splits(test=(x[:0], y[:0]))

def unlabelled():
    return splits(test=(x,))

def worded():
    return splits(task="classification")

def listed():
    return splits(model=["inputs"])

def other():
    return splits(model={"input": 4})

def not_a_number():
    return splits(test=(torch.full_like(x, torch.nan), y))

def arrays():
    return splits(train=(x.numpy(), y.numpy()))

def as_rows():
    return splits(train=[(x[i], 0) for i in range(12)])

def forgetful():
    return splits(transform=lambda batch, generator: None)

class Faulty(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x) + nonsense

def faulty():
    return Faulty(4, 2)

class Late(torch.utils.data.Dataset):
    def __len__(self):
        return 12
    def __getitem__(self, i):
        if i == 7:
            raise ValueError("row 7 is damaged")
        return x[i], y[i]

def late():
    return splits(test=DataLoader(Late(), batch_size=4))

class Stream(IterableDataset):
    def __iter__(self):
        return iter(TensorDataset(x, y))

def stream():
    return splits(train=DataLoader(Stream(), batch_size=4))
"""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["data.name=own:missing"], ["own:missing", "/nowhere/rows.csv", "own.py, line 15"]),
        (["data.name=own:iterator"], ["own:iterator: test", "iterator", "give a loader"]),
        (["data.name=own:empty"], ["own:empty: test", "0 examples"]),
        (["data.name=own:unlabelled"], ["test", "no target"]),
        (["data.name=own:worded"], ["expected a lowland Task, got str"]),
        (["data.name=own:listed"], ["own:listed", "under 'model', got list"]),
        (["data.name=own:other"], ["own:model", "'input'"]),
        (["data.name=own:stream"], ["own:stream", "without a length", "__len__"]),
        (["data.name=own:not_a_number"], ["test", "12 of 12 examples", "NaN or infinite inputs"]),
        (["data.name=own:arrays"], ["own:arrays: train", "torch.as_tensor"]),
        (["data.name=own:as_rows"], ["train", "these are examples; give tensors or a Dataset"]),
        (["data.name=own:forgetful"], ["train", "it is None", "transform"]),
        (["model.name=own:faulty"], ["train", "NameError", "nonsense", "own.py, line"]),
        (["task=regression"], ["train", "regression: expected targets"]),
        (["task=language"], ["train", "language modelling: expected logits (B, T, V)"]),
        (["model.args.inputs=5"], ["own:model", "train", "own:splits", "RuntimeError"]),
        (
            ["model.args.width=3", "train.batch_size=11"],
            ["the last batch (1 examples) of train", "a batch has one example"],
        ),
    ],
)
def test_what_users_bring_is_tried_before_anything_is_written(run, tmp_path, args, words):
    (tmp_path / "own.py").write_text(OWN)
    sys.modules.pop("own", None)
    mine = {"model": {"name": "own:model"}, "data": {"name": "own:splits"}}
    code, err = run("out=r", *args, **mine)
    assert code == 2, err
    for word in words:
        assert word in err
    assert not (tmp_path / "r").exists()


def test_an_error_of_the_users_own_code_in_mid_run_is_reported_with_its_place(run, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    sys.modules.pop("own", None)
    mine = {"model": {"name": "own:model"}, "data": {"name": "own:late"}}
    code, err = run("out=r", "methods=[sgd]", **mine)
    assert code == 2, err
    assert "ValueError: row 7 is damaged" in err
    assert "own.py, line" in err
    assert "Traceback" not in err


def test_an_error_of_ours_is_none_of_the_users(run, monkeypatch):
    from lowland.zoo.splits import split_sizes

    monkeypatch.setattr(
        "lowland.cli.run.show_comparison", lambda *_: split_sizes("a", "b")
    )  # called wrongly
    with pytest.raises(TypeError):
        run("out=r", "methods=[sgd]", "train.epochs=1")


def test_a_package_may_lie_beside_the_configuration(run, tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text(OWN)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, err = run("methods=[sgd]", model={"name": "beside:model"}, data={"name": "beside:splits"})
    assert code == 0, err


def test_a_missing_configuration(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lowland", "run", "nowhere.yaml"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "nowhere.yaml" in capsys.readouterr().err


def test_a_folder_with_something_else_is_left_alone(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    code, err = run("out=mine")
    assert code == 2
    assert "is not empty, and no run folder: it holds no config.yaml" in err
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_folder_of_an_earlier_format_is_refused_and_left_as_it_is(run, tmp_path):
    (tmp_path / "r").mkdir()
    file = tmp_path / "r" / "config.yaml"
    file.write_text("format: lowland-run-1\nsettings: {}\nran_with: {threads: 1}\n")
    code, err = run("out=r", "methods=[sgd]")
    assert code == 2
    assert "its format is 'lowland-run-1'" in err
    assert [p.name for p in (tmp_path / "r").iterdir()] == ["config.yaml"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that is done, to be copied and damaged."""
    folder = tmp_path_factory.mktemp("whole")
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG | {"methods": ["ema", "swa", "swag", "fge"]}))
    code, _, err = lowland("run", path, f"out={folder / 'r'}")
    assert code == 0, err
    return path, folder / "r"


@pytest.fixture
def again(whole, tmp_path):
    """A copy of the finished run, and what the same command does to it."""
    out = tmp_path / "r"
    shutil.copytree(whole[1], out)

    def call(config=whole[0]):
        code, printed, err = lowland("run", config, f"out={out}")
        return code, printed + err

    return out, call


def figures(folder):
    columns = json.loads((folder / "records" / "comparison.json").read_text())["columns"]
    return {name: values for name, values in columns.items() if "seconds" not in name}


def half(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file):
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)


def unlink(file):
    file.unlink()


def place_of(out, name):
    """The folder of an artifact."""
    (manifest,) = [m for m in manifests(out) if m.body["name"] == name]
    return manifest.folder


def shown(out):
    """All that people see in a run folder: its files by name."""
    folders = ("weights", "records", "trajectory", "pictures")
    return {
        p.relative_to(out).as_posix(): p.read_bytes()
        for folder in folders
        for p in (out / folder).rglob("*")
        if p.is_file()
    }


DAMAGED = [
    ("rows/swag", "record.json", half),
    ("predictions/swag", "record.npz", half),
    ("tuning/swag", "tuned.json", unlink),
    ("tables/comparison", "record.json", flip),
    ("curves", "record.json", half),
    ("weights/average-0", "weights.safetensors", half),
    ("weights/ema-0", "weights.safetensors", unlink),
    ("weights/ema-0", "manifest.json", half),
]


@pytest.mark.parametrize(("name", "file", "damage"), DAMAGED)
def test_a_damaged_artifact_is_reported_and_built_again(whole, again, name, file, damage):
    out, call = again
    damage(place_of(out, name) / file)
    code, text = call()
    assert code == 0, text
    assert f"{name} is built again (" in text
    assert shown(out) == shown(whole[1])


@pytest.mark.parametrize("damage", [half, unlink, flip])
@pytest.mark.parametrize(
    "name",
    ["records/swag.npz", "weights/ema-0.safetensors", "trajectory/swa-0/000001.safetensors"],
)
def test_what_people_see_is_restored(whole, again, name, damage):
    out, call = again
    damage(out / name)
    code, text = call()
    assert code == 0, text
    assert "built again" not in text
    assert shown(out) == shown(whole[1])


def test_iterates_that_were_deleted_are_trained_again_only_where_they_are_needed(whole, again):
    out, call = again
    shutil.rmtree(place_of(out, "train/swa-0"))
    code, text = call()
    assert code == 0, text
    assert "SWA trajectory" not in text
    shutil.rmtree(place_of(out, "predictions/swag"))
    code, text = call()
    assert code == 0, text
    assert "SWA trajectory" in text
    assert shown(out) == shown(whole[1])


@pytest.mark.parametrize("file", ["iterates/000001.safetensors", "iterates/journal.jsonl"])
def test_iterates_that_were_changed_are_not_used(whole, again, file):
    """A file with another content and the same size: only its checksum says it."""
    out, call = again
    flip(place_of(out, "train/swa-0") / file)
    shutil.rmtree(place_of(out, "predictions/swag"))
    code, text = call()
    assert code == 0, text
    assert f"{file} is not what was written" in text
    assert shown(out) == shown(whole[1])


@pytest.mark.parametrize("stop", [2, 20])  # of 24 steps
def test_training_again_may_be_stopped(whole, again, monkeypatch, stop):
    out, call = again
    for name in ("train/swa-0", "predictions/swag"):
        shutil.rmtree(place_of(out, name))
    step, count = torch.optim.SGD.step, 0

    def stepping(*args, **kwargs):
        nonlocal count
        count += 1
        if count == stop:
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", stepping)
        assert call()[0] == 130
    code, text = call()
    assert code == 0, text
    assert shown(out) == shown(whole[1])


def test_a_damaged_configuration_is_reported(again):
    out, call = again
    half(out / "config.yaml")
    code, err = call()
    assert code == 2
    assert "config.yaml" in err
    unlink(out / "config.yaml")
    assert call()[0] == 0


def test_what_another_process_builds_is_reported(whole, again):
    out, call = again
    place = place_of(out, "predictions/swag")
    shutil.rmtree(place)
    with leases_of(out).hold(place.name, "predictions/swag"):
        code, err = call()
    assert code == 2
    assert "predictions/swag is under way in process" in err
    assert call()[0] == 0
    assert shown(out) == shown(whole[1])


def test_a_change_builds_what_depends_on_it_and_shows_why(whole, again, tmp_path):
    out, call = again
    changed = yaml.safe_load(whole[0].read_text())
    changed["average"]["scales"] = [0.25]
    other = tmp_path / "changed.yaml"
    other.write_text(yaml.safe_dump(changed))
    (out / "events.jsonl").unlink()
    code, text = call(other)
    assert code == 0, text
    assert "tuning/swag is built again (scales: [0.5, 1.0] there, [0.25] now" in text
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    built = [event["artifact"] for event in events if event["event"] == "built"]
    assert [*built[:3], *sorted(built[3:])] == [
        "tuning/swag",
        "predictions/swag",
        "rows/swag",
        "best",
        "pictures/nll-by-samples",
        "pictures/reliability",
        "tables/comparison",
    ]
    assert "built again" not in call()[1].replace("tuning/swag is built again", "")
    assert shown(out) == shown(whole[1])  # what was there before is there still


OTHER = """
from lowland.zoo import digits
def data(**args):
    splits = digits(train=0.1, shift=1)
    x, y = splits["test"]
    return splits | {"test": (x[:200], y[:200])}
"""


def test_other_examples_are_reported_by_the_split(whole, again, tmp_path, monkeypatch):
    """A run whose data function returned other examples showed its old table."""
    out, call = again
    (tmp_path / "other_examples.py").write_text(OTHER)
    monkeypatch.syspath_prepend(tmp_path)
    changed = yaml.safe_load(whole[0].read_text()) | {"data": {"name": "other_examples:data"}}
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(changed))
    code, text = call(tmp_path / "changed.yaml")
    assert code == 0, text
    assert "predictions/swag is built again (other data/test" in text
    assert "SWA trajectory" not in text
    assert figures(out) != figures(whole[1])


def test_an_edited_choice_is_no_result(whole, again):
    """A scale that was written into a record was shown, and sampled with."""
    out, call = again
    file = place_of(out, "tuning/swag") / "tuned.json"
    body = json.loads(file.read_text())
    file.write_text(json.dumps(body | {"scale": 9.0}, indent=1) + "\n")
    code, text = call()
    assert code == 0, text
    assert shown(out) == shown(whole[1])
    (run,) = load_runs([out])
    results = Results(Run(run.config, Setup(run.config)), out)
    _, tuned = results.posterior(method_named("swag"))
    assert tuned == body


def test_another_version_of_torch_is_reported(again):
    out, call = again
    file = out / "config.yaml"
    file.write_text(file.read_text().replace(f"torch: {torch.__version__}", "torch: 1.0.0"))
    code, said = call()
    assert code == 0
    assert "Began with" in said
    assert "torch 1.0.0" in said
