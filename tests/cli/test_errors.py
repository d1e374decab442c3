"""What users get wrong: one sentence, exit code 2, and nothing on disk harmed."""

import json
import shutil
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

import lowland as ll
from lowland.cli import main
from lowland.cli.config import read_config
from lowland.cli.folder import locked
from lowland.files import same_tree
from tests.cli.test_run import CONFIG


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Calls the command line in this process; gives exit code and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*args, **changes):
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(CONFIG | changes))
        monkeypatch.setattr(sys, "argv", ["lowland", "run", str(path), *args])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, capsys.readouterr().err

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
        (["fge.cycle=9"], {}, ["FGE ensemble needs 1", "gets 0"]),
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
        (["data.name=own:empty"], ["own:empty: test", "0 rows"]),
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
            ["the last batch (1 rows) of train", "a batch has one example"],
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


def test_an_error_of_the_users_own_code_in_mid_run_is_told_with_its_place(run, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    sys.modules.pop("own", None)
    mine = {"model": {"name": "own:model"}, "data": {"name": "own:late"}}
    code, err = run("out=r", "methods=[sgd]", **mine)
    assert code == 2, err
    assert "ValueError: row 7 is damaged" in err
    assert "own.py, line" in err
    assert "Traceback" not in err


def test_an_error_of_ours_is_none_of_the_users(run, monkeypatch):
    from lowland.zoo.splits import shares

    monkeypatch.setattr("lowland.cli.run.draw_all", lambda _: shares("a", "b"))  # called wrongly
    with pytest.raises(TypeError):
        run("out=r", "methods=[sgd]", "train.epochs=1")


def test_a_package_may_lie_beside_the_configuration(run, tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text(OWN)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, err = run("methods=[sgd]", model={"name": "beside:model"}, data={"name": "beside:splits"})
    assert code == 0, err


def test_a_number_may_be_written_as_in_python(tmp_path):
    (tmp_path / "c.yaml").write_text(
        yaml.safe_dump(CONFIG) + "task: {name: 'a:b', args: {v: 1e-4}}"
    )
    config = read_config(tmp_path / "c.yaml", ["model.args.lr=2e3"])
    assert config.task.args == {"v": 1e-4}
    assert config.model.args["lr"] == 2000.0


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
    assert "not a run folder" in err
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_run_of_other_settings_is_not_gone_on_with(run, tmp_path):
    assert run("out=r", "methods=[sgd]", "train.epochs=1")[0] == 0
    before = {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()}
    code, err = run("out=r", "methods=[sgd]", "train.epochs=2")
    assert code == 2
    assert "other settings" in err
    assert "epochs" in err
    assert {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()} == before


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that is done, to be copied and damaged."""
    folder = tmp_path_factory.mktemp("whole")
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG | {"methods": ["ema", "swa", "swag", "fge"]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lowland", "run", str(path), f"out={folder / 'r'}"])
        with pytest.raises(SystemExit) as stop:
            main()
    assert stop.value.code == 0
    return path, folder / "r"


@pytest.fixture
def again(whole, tmp_path, monkeypatch, capsys):
    """A copy of the finished run, and what the same command does to it."""
    out = tmp_path / "r"
    shutil.copytree(whole[1], out)

    def call():
        monkeypatch.setattr(sys, "argv", ["lowland", "run", str(whole[0]), f"out={out}"])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, "".join(capsys.readouterr())

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


HEALS = [
    ("records/swag.json", half),
    ("records/swag.npz", half),
    ("records/curves.json", half),
    ("records/training-swa-0.json", half),
    ("weights/swa-0.safetensors", half),
    ("weights/ema-0.safetensors", unlink),
    ("weights/average-0.safetensors", flip),
    ("weights/fge-0.safetensors", flip),
    ("checkpoints/swa-0.safetensors", unlink),  # people tidy up
    ("checkpoints/fge-0.safetensors", half),
]


@pytest.mark.parametrize(("name", "damage"), HEALS)
def test_what_can_be_made_again_is(whole, again, name, damage):
    out, call = again
    damage(out / name)
    if name.startswith("weights"):  # so that it is needed
        for record in out.glob("records/[!t]*"):
            record.unlink()
    iterates = {p: p.read_bytes() for p in (out / "trajectory").rglob("*.safetensors")}
    code, err = call()
    assert code == 0, err
    assert figures(out) == figures(whole[1])
    assert iterates == {p: p.read_bytes() for p in (out / "trajectory").rglob("*.safetensors")}


LOST = [
    (["trajectory"], ["swa-0", "fge-0"]),
    (["trajectory/swa-0"], ["swa-0"]),
    (["trajectory/fge-0", "checkpoints"], ["fge-0"]),
]


@pytest.mark.parametrize(("deleted", "told"), LOST)
def test_iterates_that_were_deleted_are_told_and_made_again(whole, again, deleted, told):
    out, call = again
    iterates = {p: load_file(p) for p in out.rglob("trajectory/*/*.safetensors")}
    tables = {p: p.read_bytes() for p in out.glob("records/*.npz")}
    for name in deleted:
        shutil.rmtree(out / name)
    code, said = call()
    assert code == 0, said
    for name in ("swa-0", "fge-0"):
        assert (f"trajectory/{name} is gone: training {name} again" in said) == (name in told)
    assert same_tree([load_file(p) for p in iterates], list(iterates.values()))
    assert {p: p.read_bytes() for p in tables} == tables
    assert figures(out) == figures(whole[1])
    assert "is gone" not in call()[1]


@pytest.mark.parametrize("stop", [2, 20])  # of 24 steps
def test_making_iterates_again_may_be_stopped(whole, again, monkeypatch, stop):
    out, call = again
    iterates = {p: load_file(p) for p in out.rglob("trajectory/*/*.safetensors")}
    shutil.rmtree(out / "trajectory/swa-0")
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
    code, said = call()
    assert code == 0, said
    assert same_tree([load_file(p) for p in iterates], list(iterates.values()))


@pytest.mark.parametrize("damage", [half, unlink])
def test_iterates_that_are_damaged_are_told_by_a_run_that_is_done(again, damage):
    out, call = again
    damage(out / "trajectory/swa-0/journal.jsonl")
    code, err = call()
    assert code == 2
    assert "journal.jsonl" in err
    assert "to train swa-0 again" in err


NAMED = [
    ("config.yaml", half, "config.yaml"),
    ("config.yaml", unlink, "config.yaml"),
    ("trajectory/swa-0/journal.jsonl", half, "journal.jsonl"),
    ("trajectory/swa-0/journal.jsonl", flip, "journal.jsonl"),
    ("trajectory/swa-0/000001.safetensors", half, "000001.safetensors"),
    ("trajectory/swa-0/000001.safetensors", flip, "000001.safetensors"),
    ("checkpoints/swa-0.safetensors", half, "checkpoints/swa-0.safetensors"),
    ("checkpoints/swa-0.safetensors", unlink, "checkpoints/swa-0.safetensors"),
]


@pytest.mark.parametrize(("name", "damage", "told"), NAMED)
def test_what_cannot_be_made_again_is_named_and_nothing_is_lost(again, name, damage, told):
    out, call = again
    for file in [*out.glob("records/*"), *out.glob("weights/*")]:
        file.unlink()
    damage(out / name)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.suffix != ".jsonl"}
    code, err = call()
    assert code == 2, err
    assert "Traceback" not in err
    assert told in err
    after = {p: p.read_bytes() for p in before if p.is_file()}
    assert after == before


def test_two_processes_do_not_work_in_one_folder(whole, again):
    out, call = again
    with locked(out):
        code, err = call()
    assert code == 2
    assert "another process works in" in err
    assert call()[0] == 0


def test_another_version_of_torch_is_told(again):
    out, call = again
    file = out / "config.yaml"
    file.write_text(file.read_text().replace(f"torch: {torch.__version__}", "torch: 1.0.0"))
    code, said = call()
    assert code == 0
    assert "Began with" in said
    assert "torch 1.0.0" in said


def test_the_version_is_told(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lowland", "--version"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == f"lowland {ll.__version__}"
