"""What people get of an average: weights in the checkpoints' format, companions, average.json."""

import json

import torch
from safetensors.torch import load_file, save_file

from lowland import SWA, ParamLayout
from lowland.artifacts import Graph
from lowland.cli.average_files import AverageRecord, AverageWeights, Companions, merge
from lowland.cli.average_moments import CheckpointMean, CheckpointSet
from lowland.cli.checkpoints import select_checkpoints
from lowland.trajectory.checkpoint_tensors import layout_of


def test_a_merged_checkpoint_has_averages_and_keeps_dtypes_and_the_rest():
    last = {"fc.weight": torch.ones(2, 2, dtype=torch.bfloat16), "steps": torch.tensor(7)}
    layout = layout_of({"fc.weight": last["fc.weight"]})
    assert isinstance(layout, ParamLayout)
    tensors = merge(layout, torch.full((4,), 0.5), last, {"mean": torch.ones(1)})
    assert set(tensors) == {"fc.weight", "steps"}
    assert tensors["fc.weight"].dtype == torch.bfloat16
    assert bool((tensors["fc.weight"] == 0.5).all())
    assert int(tensors["steps"]) == 7


def pretrained(folder, **files):
    """A checkpoint of a Hugging Face model, selected."""
    folder.mkdir(parents=True)
    save_file({"fc.weight": torch.ones(2)}, folder / "model.safetensors")
    for name, content in {"config": '{"n": 1}', **files}.items():
        (folder / f"{name}.json").write_text(content)
    return select_checkpoints([str(folder / "model.safetensors")])


def test_a_pretrained_model_has_its_companions_without_its_quantisation(tmp_path):
    content = '{"quantization_config": {"bits": 8}, "n": 1}'
    selection = pretrained(tmp_path / "checkpoint-9", config=content, trainer_state="{}")
    graph = Graph(tmp_path / "out")
    graph.build([Companions(selection, dequantized=True)])
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"n": 1}
    assert not (tmp_path / "out" / "trainer_state.json").exists()
    graph.build([Companions(selection, dequantized=False)])
    assert (tmp_path / "out" / "config.json").read_text() == content


def test_files_of_an_average_that_is_averaged_again_are_no_companions(tmp_path):
    names = ("average", "comparison", "graph", "plan", "model.safetensors.index", "manifest")
    others = dict.fromkeys(names, "of another folder")
    selection = pretrained(tmp_path / "checkpoint-9", **others)
    companions = Companions(selection, dequantized=False)
    assert [file.name for file in companions.files] == ["config.json", "manifest.json"]
    graph = Graph(tmp_path / "out")
    graph.build([companions])
    assert (tmp_path / "out" / "manifest.json").read_text() == "of another folder"
    assert [file.name for file in graph.load(companions)] == ["config.json", "manifest.json"]


def test_weights_and_their_record(tmp_path):
    for step in (9, 10):
        tensors = {"fc.weight": torch.full((2,), float(step)), "index": torch.tensor(step)}
        save_file(tensors, tmp_path / f"step-{step}.safetensors")
    selection = select_checkpoints([str(tmp_path)])
    contents = selection.check()
    layout = layout_of(contents.tensors)
    sources = selection.sources(lambda done, total: None)
    checkpoints = CheckpointSet(selection, contents, layout, None, sources)
    mean = CheckpointMean(checkpoints, None, "swa", SWA)
    weights = AverageWeights(checkpoints, mean, "swa", "swa.safetensors")
    record = AverageRecord(checkpoints, mean, None, {"rank": None})
    graph = Graph(tmp_path / "out")
    graph.build([weights, record])
    written = load_file(tmp_path / "out" / "swa.safetensors")
    assert written["fc.weight"].tolist() == [9.5, 9.5]
    assert int(written["index"]) == 10
    body = json.loads((tmp_path / "out" / "average.json").read_text())
    assert list(body) == ["rank", "tensors", "checkpoints"]
    assert [each["step"] for each in body["checkpoints"]] == [9, 10]
    assert body["tensors"] == {"index": "Integers and booleans are the last checkpoint's"}
    (outcome,) = graph.load(record)
    assert outcome.names == ["index"]
