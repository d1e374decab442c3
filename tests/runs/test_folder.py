"""The run folder: config.yaml, and weights by name."""

import math

import pytest
import torch

from lowland.cli.repeat import config_of
from lowland.errors import StoreError
from lowland.runs.config import check_config
from lowland.runs.folder import RunFolder, versions
from lowland.runs.setup import Setup


def test_the_settings_are_read_as_they_were_written(finished):
    settings, environment = RunFolder(finished.folder).read()
    written = finished.run.config.model_dump(exclude={"plan", "out"})
    assert {key: settings[key] for key in written} == written
    assert "plan" not in settings  # it is in the folder, as plan.json
    assert environment["versions"] == versions()


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="is not empty, and no run folder: it holds no"):
        RunFolder(tmp_path).prepare()
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StoreError, match="is a file; name a folder with out=FOLDER"):
        RunFolder(file).prepare()
    RunFolder(tmp_path / "new" / "run").prepare()
    assert (tmp_path / "new" / "run").is_dir()


def test_weights_are_read_by_name(finished):
    layout = finished.run.setup.layout
    point = RunFolder(finished.folder).load_weights("sgd-0", layout)
    expected = finished.load(finished.run.annealed(0)).point
    assert torch.equal(point.weights, expected.weights)


OWN = """
from torch import nn
def net():
    return nn.Linear(3, 2)
def data(table, far):
    import torch
    examples = torch.zeros(6, 3), torch.arange(6) % 2
    return {"train": examples, "validation": examples, "test": examples, "table": table, "far": far}
"""


def test_a_run_folder_gives_back_what_its_configuration_holds(tmp_path, monkeypatch):
    (tmp_path / "own_project.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    values = {
        "model": {"name": "own_project:net"},
        "data": {"name": "own_project:data", "args": {"table": {0: 1, 1: 0}, "far": math.inf}},
        "out": str(tmp_path / "run"),
        "threads": 1,
    }
    config = check_config(values, where="here")
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.write(config)
    settings, _ = folder.read()
    again = check_config(settings, where="there")
    assert again == config
    data = Setup(again).data
    assert data["table"] == {0: 1, 1: 0}
    assert data["far"] == math.inf
    assert config_of(config, "seed", 3).data.args == config.data.args
