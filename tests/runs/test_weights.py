"""The weights of a run folder are plain state dicts."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import lowland as ll
from lowland.core import Point
from lowland.core.names import clean
from lowland.errors import StoreError
from lowland.runs.folder import RunFolder
from lowland.runs.weights import save_point
from lowland.tensor_files import read_tensors
from tests.models import Case, conv_bn, every_case


def save(run, name, *args):
    """Writes weights where a run folder shows them."""
    folder = run / "weights"
    save_point(folder / f"{name}.safetensors", folder / "buffers" / f"{name}.safetensors", *args)


def trained(case: Case) -> tuple[nn.Module, ll.ParamLayout, Point]:
    """A model, and a point elsewhere: other weights, and buffers that a training pass has moved."""
    model = case.model()
    ll.sgd(model, case.task(), case.batches(), epochs=1)
    layout = ll.ParamLayout(model)
    buffers = clean({name: b.detach().clone() for name, b in model.named_buffers()})
    return model, layout, Point(layout.flatten(model) + 0.01, buffers)


@every_case
def test_a_file_of_weights_is_a_state_dict_and_comes_back_bit_by_bit(case, tmp_path):
    model, layout, point = trained(case)
    save(tmp_path, "sgd-0", model, layout, point)
    file = tmp_path / "weights" / "sgd-0.safetensors"
    fresh = trained(case)[0]  # with what a first pass may fill in
    fresh.load_state_dict(load_file(file))  # strict
    assert torch.equal(layout.flatten(fresh), layout.flatten(layout.load_(model, point.weights)))
    for name, buffer in clean(dict(fresh.named_buffers())).items():
        torch.testing.assert_close(buffer, point.buffers[name])
    back = RunFolder(tmp_path).load_weights("sgd-0", layout)
    assert torch.equal(back.weights, point.weights)
    assert back.buffers.keys() == point.buffers.keys()
    for name, buffer in point.buffers.items():
        assert torch.equal(back.buffers[name], buffer)


class Remembers(nn.Module):
    """A buffer that state dicts leave out, and a frozen layer that is drawn anew each time."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.head = nn.Linear(2, 1)
        self.register_buffer("mean", torch.zeros(2), persistent=False)

    def forward(self, x):
        return self.head(self.frozen(x - self.mean))


def test_what_no_state_dict_holds_comes_back_too(tmp_path):
    model = Remembers()
    layout = ll.ParamLayout(model)
    point = Point(layout.flatten(model), {"mean": torch.tensor([1.0, 2.0])})
    folder = RunFolder(tmp_path)
    save(tmp_path, "sgd-0", model, layout, point)
    stored = load_file(tmp_path / "weights" / "sgd-0.safetensors")
    other = Remembers()
    other.load_state_dict(stored)
    assert torch.equal(other.frozen.weight, model.frozen.weight)
    assert torch.equal(folder.load_weights("sgd-0", layout).buffers["mean"], point.buffers["mean"])
    assert [p.stem for p in (tmp_path / "weights").glob("*.safetensors")] == ["sgd-0"]
    save(tmp_path, "sgd-0", model, layout, Point(point.weights, {}))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1  # nothing of before is left


def test_averages_without_buffers_have_those_of_the_model(tmp_path):
    model = conv_bn()
    layout = ll.ParamLayout(model)
    point = Point(layout.flatten(model), {"1.running_mean": torch.full((4,), 5.0)})
    save(tmp_path, "average-0", model, layout, point)
    stored = load_file(tmp_path / "weights" / "average-0.safetensors")
    assert stored.keys() == model.state_dict().keys()
    assert torch.equal(stored["1.running_mean"], point.buffers["1.running_mean"])
    assert torch.equal(stored["1.running_var"], model[1].running_var)
    back = RunFolder(tmp_path).load_weights("average-0", layout)
    assert list(back.buffers) == ["1.running_mean"]  # the others were never this point's


@pytest.mark.parametrize("names", ["3", '["1.running_mean", "elsewhere"]', "[" * 9000])
def test_a_header_that_does_not_fit_is_refused(tmp_path, names):
    model = conv_bn()
    layout = ll.ParamLayout(model)
    save(tmp_path, "sgd-0", model, layout, Point(layout.flatten(model), {}))
    file = tmp_path / "weights" / "sgd-0.safetensors"
    tensors, notes = read_tensors(file)
    assert json.loads(notes["buffers"]) == []
    save_file(tensors, file, metadata={"buffers": names})
    with pytest.raises(StoreError, match=r"sgd-0\.safetensors"):
        RunFolder(tmp_path).load_weights("sgd-0", layout)
