"""What users get wrong: one sentence, exit code 2, and nothing on disk harmed."""

import sys

import pytest
import yaml

from lowland.cli import main
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
        (["model.args.classes=5"], {}, ["labels out of range", "0 to 4"]),
    ],
)
def test_one_sentence_and_exit_code_2(run, args, changes, words):
    code, err = run("out=runs/x", *args, **changes)
    assert code == 2, err
    assert "Traceback" not in err
    for word in words:
        assert word in err


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


def test_a_damaged_iterate_is_named(run, tmp_path):
    assert run("out=r", "methods=[ema]")[0] == 0
    (file,) = (tmp_path / "r" / "trajectory").rglob("000001.safetensors")
    file.write_bytes(file.read_bytes()[:-8])
    (tmp_path / "r" / "records" / "ema.json").unlink()
    (tmp_path / "r" / "weights" / "average-0.safetensors").unlink()
    code, err = run("out=r", "methods=[ema]")
    assert code == 2
    assert "000001.safetensors" in err
    assert "damaged" in err
