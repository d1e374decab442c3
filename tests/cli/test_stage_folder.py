"""The folder of a stage: read as it was written, moved with its runs, never put over others'."""

import shutil

import pytest
import torch

from lowland.cli.curve_folder import CurveFolder
from lowland.cli.load_runs import load_runs
from lowland.cli.origins import changed_origins
from lowland.cli.simplex_folder import SimplexFolder
from lowland.cli.stage_folder import words_of
from lowland.errors import ConfigError, StoreError
from lowland.runs.folder import RunFolder


@pytest.fixture
def runs(finished_runs, tmp_path):
    """Copies of two runs, which may be moved."""
    return [shutil.copytree(path, tmp_path / "here" / path.name) for path in finished_runs]


@pytest.fixture
def folder(runs):
    """Two networks of one run, in its folder."""
    loaded = load_runs(runs[:1])
    stage = CurveFolder(CurveFolder.default_path(loaded), loaded, ["sgd-0", "average-0"])
    stage.claim({"epochs": 3})
    return stage


def test_a_folder_is_read_as_it_was_written(folder, runs):
    assert folder.path == runs[0] / "connect"
    assert CurveFolder.within(runs[0]) == [folder.path]
    again = CurveFolder.open(folder.path)
    assert again.names == again.titles() == ("sgd-0", "average-0")
    assert again.read(folder.path)["settings"] == {"epochs": 3}
    for ours, theirs in zip(folder.weights, again.weights, strict=True):
        assert torch.equal(ours.weights, theirs.weights)
    for i, name in enumerate(again.names):
        expected = RunFolder(runs[0]).load_weights(name, again.setup.layout)
        assert torch.equal(again.weights[i].weights, expected.weights)


def test_weights_of_several_runs_are_those_of_each(runs):
    loaded = load_runs(runs)
    stage = SimplexFolder(SimplexFolder.default_path(loaded), loaded, ["sgd-0", "sgd-0"])
    assert stage.path == runs[0].parent / "simplex"
    assert stage.titles() == tuple(f"{run}/sgd-0" for run in runs)
    assert stage.weight_files() == [(run, "weights/sgd-0.safetensors") for run in runs]
    first, second = stage.weights
    assert not torch.equal(first.weights, second.weights)
    assert [source.name for source in stage.sources()] == [f"weights/{t}" for t in stage.titles()]


def test_runs_may_be_moved_with_their_stages(folder, runs, tmp_path):
    moved = (tmp_path / "here").rename(tmp_path / "there") / "r0"
    stage = CurveFolder.open(moved / "connect")
    assert stage.runs[0].folder.path == moved
    away = shutil.move(moved / "connect", tmp_path / "away")
    with pytest.raises(ConfigError, match=r"names runs that are not there .*move them along"):
        CurveFolder.open(away)


def test_a_folder_of_another_kind_or_of_someone_elses_is_left_alone(folder, runs):
    assert not SimplexFolder.is_at(folder.path)
    other = SimplexFolder(folder.path, folder.runs, ["sgd-0"])
    with pytest.raises(StoreError, match="is not empty, and no folder of simplexes"):
        other.claim({})
    assert CurveFolder.open(folder.path).names == ("sgd-0", "average-0")
    text = folder.file(folder.path).read_text().replace("lowland-stage-", "lowland-stage-0")
    folder.file(folder.path).write_text(text)
    with pytest.raises(StoreError, match="its format is 'lowland-stage-0"):
        folder.claim({})
    assert folder.file(folder.path).read_text() == text


def test_origins_are_the_weights_and_what_a_command_adds(folder, runs):
    folder.claim({}, {"center": [(runs[0], "weights/swa-0.safetensors")]})
    assert changed_origins(folder.path) == {}
    shutil.rmtree(runs[0] / "artifacts")
    weights = {f"weights/{name}" for name in folder.names}
    assert changed_origins(folder.path).keys() == {"center"} | weights


def test_weights_by_name(folder, runs):
    names = folder.runs[0].folder.weight_names()
    assert {"sgd-0", "average-0"} <= set(names)
    with pytest.raises(ConfigError, match=rf"no weights 'sgd-9'; there are {', '.join(names)}"):
        folder.runs[0].folder.load_weights("sgd-9", folder.setup.layout)


def test_words_have_commas_between():
    assert words_of(" a,b , ,c") == ["a", "b", "c"]
    assert words_of("") == words_of(None) == []
