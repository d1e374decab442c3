"""Checkpoints with pickled objects: their weights are read, and nothing that they name is run."""

import argparse
import enum
import functools
import os
import pathlib
import pickle
import subprocess
import types
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lowland import LowlandError, ParamLayout, StoreError, Trajectory
from lowland.trajectory import convert_checkpoints, read_checkpoint
from lowland.trajectory.torch_files import Unread, read_without_code
from tests.cli import inside
from tests.trajectory.nets import Net, stepped


class Options(dict):
    """A dict of one's own, as libraries of configurations have them."""


class Words(list):
    """A list of one's own."""


class Coded(torch.Tensor):
    """A tensor of another library's class."""

    def dequantize(self):
        return self.as_subclass(torch.Tensor) / 2


class Slots:
    __slots__ = ("a",)

    def __init__(self):
        self.a = 1


class Color(enum.Enum):
    RED = 1


def hyperparameters():
    """What training scripts pickle beside the weights."""
    return {
        "namespace": argparse.Namespace(lr=0.1, inner=argparse.Namespace(x=[1, 2])),
        "dict": Options(a=1, b=Options(c=2)),
        "list": Words([1, Words([2])]),
        "slots": Slots(),
        "enum": Color.RED,
        "path": pathlib.PurePosixPath("a/b"),
        "numpy": (np.float64(0.5), np.arange(3), np.dtype("float32")),
        "partial": functools.partial(print, 1, end=""),
        "function": os.path.join,
        "class": nn.Linear,
        "default": defaultdict(Words, a=Words()),
        "set": {1, 2},
        "module": nn.Linear(2, 2),
        "simple": types.SimpleNamespace(a=1),
    }


def saved(folder, steps=(9, 10, 100), *, name="epoch={0}-step={0}.ckpt", **more):
    folder.mkdir(exist_ok=True)
    for step in steps:
        state = {f"net.{n}": t for n, t in stepped(Net(), step).state_dict().items()}
        content = {"state_dict": state, "global_step": step, "hyper_parameters": hyperparameters()}
        torch.save(content | more, folder / name.format(step))
    return folder


def test_a_folder_is_converted_with_its_steps(tmp_path):
    saved(tmp_path / "run")
    layout = ParamLayout(Net())
    with pytest.raises(StoreError, match=r"weights_only=True.*lowland convert"):
        Trajectory.from_checkpoints(tmp_path / "run", layout).swa()
    converted = convert_checkpoints(tmp_path / "run", tmp_path / "weights")
    assert [c.step for c in converted] == [9, 10, 100]
    traj = Trajectory.from_checkpoints(tmp_path / "weights", layout)
    assert traj.steps == [9, 10, 100]
    for step, point in zip(traj.steps, traj, strict=True):
        assert torch.equal(point.weights, layout.flatten(stepped(Net(), step)))
        assert int(point.buffers["norm.num_batches_tracked"]) == step


def test_steps_are_read_from_lightnings_files_whose_names_have_none(tmp_path):
    saved(tmp_path / "run", name="epoch={0}-loss=0.5.ckpt")
    convert_checkpoints(tmp_path / "run", tmp_path / "weights")
    names = sorted(p.name for p in (tmp_path / "weights").iterdir())
    assert names == ["step-10.safetensors", "step-100.safetensors", "step-9.safetensors"]


def test_the_command_line_converts_what_average_refuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "run")
    code, _, err = inside.lowland("average", "run")
    assert (code, "lowland convert" in err) == (2, True)
    code, out, err = inside.lowland("convert", "run", "--out", "weights", "--prefix", "net.")
    assert code == 0, err
    assert "Converted 3 checkpoints, steps 9 to 100: weights" in out
    assert inside.lowland("average", "weights", "--no-swag")[0] == 0
    Net().load_state_dict(load_file("averaged/swa.safetensors"))
    assert inside.lowland("convert", "run", "--out", "weights")[0] == 0  # again
    code, _, err = inside.lowland("convert", "run", "--out", "run")
    assert code == 2
    assert "name another folder" in err


def test_files_of_several_kinds_keep_their_names(tmp_path):
    torch.save({"state_dict": Net().state_dict(), "a": Options()}, tmp_path / "best-0.25.pth.tar")
    torch.save(Net().state_dict(), tmp_path / "other.pt")
    files = [tmp_path / "best-0.25.pth.tar", tmp_path / "other.pt"]
    converted = convert_checkpoints(files, tmp_path / "out")
    assert [c.path.name for c in converted] == ["best-0.25.safetensors", "other.safetensors"]
    assert load_file(converted[0].path).keys() == Net().state_dict().keys()


# -- nothing is run --------------------------------------------------------------------------------


class Trap:
    """Pickled as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def traps(marker):
    line = f"import pathlib; pathlib.Path({str(marker)!r}).touch()"
    return [
        Trap(os.mkdir, str(marker)),
        Trap(exec, line),
        Trap(eval, f"__import__('os').mkdir({str(marker)!r})"),
        Trap(os.system, f"touch {marker}"),
        Trap(subprocess.check_call, ["touch", str(marker)]),
        Trap(pickle.loads, pickle.dumps(Trap(os.mkdir, str(marker)))),
        Trap(torch.load, str(marker)),
        Trap(getattr, Trap(__import__, "os"), "mkdir"),
    ]


@pytest.mark.parametrize("i", range(8))
def test_traps_do_not_run(tmp_path, i):
    marker = tmp_path / "ran"
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"w": torch.ones(2)}, "trap": traps(marker)[i]}, path)
    content = read_without_code(path)
    assert torch.equal(content["state_dict"]["w"], torch.ones(2))
    assert isinstance(content["trap"], Unread)
    assert not marker.exists()


def test_the_functions_that_make_tensors_cannot_be_changed(tmp_path):
    """A pickle may set attributes of whatever it is given."""
    change = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x07\x00\x00\x00spoiledK\x01sb."
    assert pickle.loads(change).spoiled == 1  # a broken twin
    del torch._utils._rebuild_tensor_v2.spoiled
    torch.save({}, tmp_path / "empty.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "empty.ckpt") as empty,
        zipfile.ZipFile(tmp_path / "a.ckpt", "w") as file,
    ):
        for name in empty.namelist():
            file.writestr(name, change if name.endswith("data.pkl") else empty.read(name))
    assert read_without_code(tmp_path / "a.ckpt").spoiled == 1  # of a function of its own
    assert not hasattr(torch._utils._rebuild_tensor_v2, "spoiled")


def test_tensors_of_other_classes_are_not_passed_over(tmp_path):
    path = tmp_path / "a.ckpt"
    state = OrderedDict(w=torch.ones(2), q=Options())
    torch.save({"state_dict": state, "a": Options()}, path)
    with pytest.raises(StoreError, match=r"a.ckpt: q is a .*Options, .*--run-pickled-code"):
        convert_checkpoints(path, tmp_path / "out")


@pytest.mark.parametrize("wrap", [lambda state: {"state_dict": state}, dict])
def test_tensors_of_other_libraries_have_the_values_that_those_give(tmp_path, wrap):
    path = tmp_path / "step-1.pt"
    torch.save(wrap({"w": torch.ones(2).as_subclass(Coded), "b": torch.ones(1)}), path)
    with pytest.raises(StoreError, match=r"w is a torch\._tensor\._rebuild.*--run-pickled-code"):
        convert_checkpoints(path, tmp_path / "out")
    (one,) = convert_checkpoints(path, tmp_path / "out", run_pickled_code=True)
    assert {n: t.tolist() for n, t in load_file(one.path).items()} == {"w": [0.5] * 2, "b": [1.0]}


def test_weights_that_are_not_in_a_dict_of_their_own(tmp_path):
    torch.save({"w": torch.ones(2), "args": argparse.Namespace()}, tmp_path / "step-1.pt")
    (one,) = convert_checkpoints(tmp_path / "step-1.pt", tmp_path / "out")
    assert load_file(one.path).keys() == {"w"}


def test_a_pickled_model_needs_its_code(tmp_path):
    path = tmp_path / "step-3.pt"
    for content in ({"model": Net(), "loss": torch.ones(1)}, Net()):
        torch.save(content, path)
        with pytest.raises(LowlandError, match=r"pickled model .*--run-pickled-code"):
            convert_checkpoints(path, tmp_path / "out")
    converted = convert_checkpoints(path, tmp_path / "out", run_pickled_code=True)
    assert load_file(converted[0].path).keys() == Net().state_dict().keys()


def test_damaged_and_scripted_files_stay_refused(tmp_path):
    script = tmp_path / "script.pt"
    with zipfile.ZipFile(script, "w") as file:
        file.writestr("script/data.pkl", pickle.dumps(Options()))
        file.writestr("script/constants.pkl", pickle.dumps(()))
    for path in (script, saved(tmp_path / "run", steps=[1]) / "epoch=1-step=1.ckpt"):
        path.write_bytes(path.read_bytes()[: -(20 if path != script else -0) or None])
        with pytest.raises(StoreError):
            read_without_code(path)


def test_files_in_the_older_format_of_torch_need_their_code(tmp_path):
    path = tmp_path / "step-1.pt"
    content = {"state_dict": {"w": torch.ones(2)}, "a": argparse.Namespace()}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    with pytest.raises(StoreError, match=r"--run-pickled-code"):
        convert_checkpoints(path, tmp_path / "out")
    convert_checkpoints(path, tmp_path / "out", run_pickled_code=True)
    assert read_checkpoint(tmp_path / "out" / "step-1.safetensors")["w"].tolist() == [1, 1]
