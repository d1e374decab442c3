"""Checkpoints as iterates: named where they do not fit, and only read."""

import pytest
import torch

from lowland import LayoutError, NonFiniteError, ParamLayout, StoreError, Trajectory
from tests.trajectory.nets import Net, stepped
from tests.trajectory.test_checkpoint_files import checkpoint
from tests.trajectory.test_store import files


def test_checkpoints_that_do_not_fit_are_named(tmp_path):
    layout = ParamLayout(Net())
    with pytest.raises(StoreError, match=r"no checkpoint matches .*\*\.pt"):
        Trajectory.from_checkpoints(tmp_path / "*.pt", layout)
    with pytest.raises(StoreError, match=r"gone.pt: no such file"):
        Trajectory.from_checkpoints([tmp_path / "gone.pt"], layout)[0]
    checkpoint("plain", tmp_path / "a.pt", Net())
    checkpoint("plain", tmp_path / "b.pt", Net(features=6))
    store = Trajectory.from_checkpoints(tmp_path / "*.pt", layout)
    with pytest.raises(LayoutError, match=r"b.pt: .*first.weight expected \(4, 5\), got \(4, 6\)"):
        store.swa()
    torch.save({"epoch": 3}, tmp_path / "c.pt")
    with pytest.raises(StoreError, match=r"c.pt: holds no state dict"):
        Trajectory.from_checkpoints([tmp_path / "c.pt"], layout)[0]
    (tmp_path / "d.safetensors").write_bytes(b"short")
    with pytest.raises(StoreError, match=r"d.safetensors"):
        Trajectory.from_checkpoints([tmp_path / "d.safetensors"], layout)[0]
    broken = Net()
    with torch.no_grad():
        broken.last.bias[0] = float("inf")
    checkpoint("plain", tmp_path / "e.pt", broken)
    with pytest.raises(NonFiniteError, match=r"e.pt: .*last.bias"):
        Trajectory.from_checkpoints([tmp_path / "a.pt", tmp_path / "e.pt"], layout).swa()


def test_checkpoints_are_never_written_to(tmp_path):
    for i in range(3):
        checkpoint("plain", tmp_path / f"{i}.pt", stepped(Net(), i))
    before = {f: (tmp_path / f).read_bytes() for f in files(tmp_path)}
    store = Trajectory.from_checkpoints(tmp_path / "*.pt", ParamLayout(Net()))
    with pytest.raises(StoreError, match="only read"):
        store.append(Net(), step=9)
    with pytest.raises(StoreError, match="only read"):
        store.rewind(0)
    assert {f: (tmp_path / f).read_bytes() for f in files(tmp_path)} == before
