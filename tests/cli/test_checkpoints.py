"""Checkpoints are selected by step, inspected, and averages written in their format."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lowland import ParamLayout
from lowland.artifacts.lease import HeldError
from lowland.cli.checkpoints import Output, merge, select_checkpoints
from lowland.errors import ConfigError, LayoutError, StoreError
from lowland.trajectory.checkpoint_tensors import layout_of


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


def test_a_merged_checkpoint_has_averages_and_keeps_dtypes_and_the_rest():
    last = {"fc.weight": torch.ones(2, 2, dtype=torch.bfloat16), "steps": torch.tensor(7)}
    layout = layout_of({"fc.weight": last["fc.weight"]})
    assert isinstance(layout, ParamLayout)
    tensors = merge(layout, torch.full((4,), 0.5), last, {"mean": torch.ones(1)})
    assert set(tensors) == {"fc.weight", "steps"}
    assert tensors["fc.weight"].dtype == torch.bfloat16
    assert bool((tensors["fc.weight"] == 0.5).all())
    assert int(tensors["steps"]) == 7


def test_an_output_folder_holds_an_average_and_nothing_of_others(tmp_path):
    selection = select_checkpoints([str(write_steps(tmp_path, 9, 10))])
    with pytest.raises(StoreError, match="is not empty, and no earlier average"):
        Output(tmp_path, selection)
    output = Output(tmp_path / "out", selection)
    output.path.mkdir()
    with output.hold(), pytest.raises(HeldError, match="is under way in process"):  # noqa: SIM117
        with Output(output.path, selection).hold():
            pass
    assert output.files() == []
    output.record(rank=3)
    path = output.save("swa", {"fc.weight": torch.ones(2)})
    body = json.loads((output.path / "average.json").read_text())
    assert (body["rank"], [each["step"] for each in body["checkpoints"]]) == (3, [9, 10])
    assert load_file(path)["fc.weight"].tolist() == [1, 1]
    Output(output.path, selection).clear()
    assert not path.exists()


def test_a_pretrained_model_stays_one(tmp_path):
    write_steps(tmp_path, 9)
    folder = tmp_path / "checkpoint-9"
    folder.mkdir()
    (tmp_path / "step-9.safetensors").rename(folder / "model.safetensors")
    (folder / "config.json").write_text('{"quantization_config": {"bits": 8}, "n": 1}')
    (folder / "trainer_state.json").write_text("{}")
    selection = select_checkpoints([str(folder / "model.safetensors")])
    output = Output(tmp_path / "out", selection)
    output.path.mkdir()
    assert output.save("swa", {"fc.weight": torch.ones(2)}).name == "model.safetensors"
    output.finish(dequantized=True)
    assert json.loads((output.path / "config.json").read_text()) == {"n": 1}
    assert not (output.path / "trainer_state.json").exists()
