"""The artifacts of an average: what people get, and what each is made from."""

import pytest
import torch
from safetensors.torch import save_file

from lowland.artifacts.order import ordered
from lowland.cli.average_graph import AverageGraph, AverageOptions
from lowland.cli.average_moments import CheckpointSet
from lowland.cli.checkpoints import select_checkpoints
from lowland.trajectory.checkpoint_tensors import layout_of


def graph(folder, file="step-{}.safetensors", **options):
    for step in (1, 2, 3):
        path = folder / file.format(step)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"w": torch.full((2,), float(step))}, path)
        if path.name in ("model.safetensors", "adapter_model.safetensors"):
            name = "config.json" if path.name.startswith("model") else "adapter_config.json"
            path.with_name(name).write_text("{}")
    selection = select_checkpoints([str(folder)])
    contents = selection.check()
    sources = selection.sources(lambda done, total: None)
    checkpoints = CheckpointSet(selection, contents, layout_of(contents.tensors), None, sources)
    return AverageGraph(checkpoints, None, AverageOptions(**options))


def test_without_a_model_there_are_moments_weights_and_a_record(tmp_path):
    average = graph(tmp_path, ema=0.5)
    names = {each.name for each in ordered(average.targets()) if each.kind != "source"}
    assert names == {"moments/swag", "moments/ema", "weights/swa", "weights/ema", "record"}
    assert average.files == {
        "SWA": "swa.safetensors",
        "EMA": "ema.safetensors",
        "SWAG": "swag.safetensors",
    }
    assert (average.table, average.tuning) == (None, None)


def test_without_swag_the_mean_is_that_of_swa(tmp_path):
    average = graph(tmp_path, swag=False)
    names = {each.name for each in ordered(average.targets()) if each.kind != "source"}
    assert names == {"moments/swa", "weights/swa", "record"}


@pytest.mark.parametrize(
    ("file", "place", "companions"),
    [
        ("step-{}.safetensors", "swa.safetensors", False),
        ("checkpoint-{}/adapter_model.safetensors", "adapter_model.safetensors", True),
        ("checkpoint-{}/model.safetensors", "model.safetensors", True),
    ],
)
def test_weights_lie_where_from_pretrained_looks_for_them(tmp_path, file, place, companions):
    average = graph(tmp_path, file)
    assert average.files["SWA"] == place
    kinds = {each.kind for each in average.targets()}
    assert ("companions" in kinds) == companions
