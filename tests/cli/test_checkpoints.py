"""Checkpoints are selected by step, and are inputs of artifacts by the content of their files."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from lowland.cli.checkpoints import select_checkpoints
from lowland.errors import ConfigError, LayoutError, StoreError


def write_steps(folder, *steps, **others):
    for step in steps:
        tensors = {"fc.weight": torch.full((2, 3), float(step)), "fc.bias": torch.zeros(2)}
        save_file(tensors | others, folder / f"step-{step}.safetensors")
    return folder


def test_the_last_few_from_a_step_on(tmp_path):
    write_steps(tmp_path, 9, 10, 11, 100)
    selection = select_checkpoints([str(tmp_path)], start=10, last=2)
    assert [each.step for each in selection.checkpoints] == [11, 100]
    assert selection.span() == "2 checkpoints, steps 11 to 100"
    assert selection.last.path.name == "step-100.safetensors"
    assert not selection.pretrained


def test_nothing_is_selected_twice_or_from_too_late_a_step(tmp_path):
    write_steps(tmp_path, 9, 10)
    with pytest.raises(ConfigError, match="no checkpoint is of step 11 or later; got 9, 10"):
        select_checkpoints([str(tmp_path)], start=11)
    with pytest.raises(ConfigError, match="is named twice"):
        select_checkpoints([str(tmp_path / "step-9.safetensors")] * 2)
    with pytest.raises(StoreError, match="no such file"):
        select_checkpoints([str(tmp_path / "step-8.safetensors")])


def test_files_of_another_model_are_refused(tmp_path):
    write_steps(tmp_path, 9, 10)
    selection = select_checkpoints([str(tmp_path)])
    assert set(selection.check().tensors) == {"fc.weight", "fc.bias"}
    save_file({"fc.weight": torch.ones(2, 2)}, tmp_path / "step-9.safetensors")
    with pytest.raises(LayoutError, match=r"fc\.bias"):
        selection.check()


def test_sources_change_with_the_content_of_files_alone(tmp_path):
    write_steps(tmp_path, 9, 10)
    selection = select_checkpoints([str(tmp_path)])
    counts = []
    first = selection.sources(lambda done, total: counts.append((done, total)))
    assert [each.name for each in first] == [f"checkpoint/step-{n}.safetensors" for n in (9, 10)]
    assert counts == [(1, 2), (2, 2)]
    write_steps(tmp_path, 9)
    again = selection.sources(lambda done, total: None)
    assert [each.fingerprint for each in again] == [each.fingerprint for each in first]
    write_steps(tmp_path, 9, more=torch.zeros(1))
    other = selection.sources(lambda done, total: None)
    assert other[0].fingerprint != first[0].fingerprint
    assert other[1].fingerprint == first[1].fingerprint


def sharded(folder):
    """A checkpoint in two files, and its index."""
    folder.mkdir()
    names = {"a": "one.safetensors", "b": "two.safetensors"}
    for name, file in names.items():
        save_file({name: torch.ones(1)}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    return index


def test_a_checkpoint_in_several_files_is_all_of_them(tmp_path):
    index = sharded(tmp_path / "checkpoint-1")
    selection = select_checkpoints([str(index)])
    (first,) = selection.sources(lambda done, total: None)
    save_file({"b": torch.zeros(1)}, index.with_name("two.safetensors"))
    (other,) = selection.sources(lambda done, total: None)
    assert other.fingerprint != first.fingerprint


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_permissions_are_those_that_all_files_have(tmp_path):
    index = sharded(tmp_path / "checkpoint-1")
    for file, mode in (("one", 0o640), ("two", 0o604)):
        index.with_name(f"{file}.safetensors").chmod(mode)
    assert select_checkpoints([str(index)]).permissions == 0o600


def test_files_given_by_absolute_and_by_relative_paths_have_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(write_steps(tmp_path, 9, 10))
    files = [str(tmp_path / "step-9.safetensors"), "step-10.safetensors"]
    sources = select_checkpoints(files).sources(lambda done, total: None)
    assert [each.name for each in sources] == [f"checkpoint/step-{n}.safetensors" for n in (9, 10)]
