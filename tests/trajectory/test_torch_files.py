"""Files of torch.save: which weights are taken, and nothing in them is run."""

import os

import pytest
import torch
from safetensors.torch import save_file

from lowland import (
    LayoutError,
    ParamLayout,
    StoreError,
    Trajectory,
)
from lowland.trajectory import read_checkpoint
from lowland.trajectory.checkpoint_tensors import match_layout
from tests.trajectory.nets import Net, stepped


class Mine:
    """What a pickle may hold."""


def test_pickled_code_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"state_dict": Net().state_dict(), "args": Mine()}, path)
    with pytest.raises(StoreError, match=r"model.pt: does not load with weights_only=True"):
        Trajectory.from_checkpoints([path], ParamLayout(Net())).swa()
    torch.save(Net(), path)
    with pytest.raises(StoreError, match=r"model.pt: .*save its state dict alone"):
        Trajectory.from_checkpoints([path], ParamLayout(Net())).swa()


def test_a_part_of_a_word_makes_no_copy(tmp_path):
    """In "semantic" there is "ema": the other branch would be taken without a word."""
    branches = {
        f"{name}.{n}": t
        for seed, name in enumerate(("semantic", "instance"))
        for n, t in stepped(Net(), seed).state_dict().items()
    }
    with pytest.raises(LayoutError, match=r"semantic\., instance\. fit alike"):
        match_layout(branches, ParamLayout(Net()))
    for copy in ("ema_net", "netEMA_", "net_ema", "EMA", "averaged", "swa_model", "model.teacher"):
        both = {n.replace("semantic", copy): t for n, t in branches.items()}
        if copy == "netEMA_":  # who knows
            with pytest.raises(LayoutError, match="fit alike"):
                match_layout(both, ParamLayout(Net()))
        else:
            stored = match_layout(both, ParamLayout(Net()))
            assert all(torch.equal(stored[n], both[f"instance.{n}"]) for n in stored)


def test_a_key_selects_the_weights(tmp_path):
    content = {"model": Net().state_dict(), "ema": {"shadow": stepped(Net(), 4).state_dict()}}
    torch.save(content, tmp_path / "a.pt")
    layout = ParamLayout(Net())
    traj = Trajectory.from_checkpoints(tmp_path / "a.pt", layout, key="ema.shadow")
    assert torch.equal(traj[0].weights, layout.flatten(stepped(Net(), 4)))
    with pytest.raises(StoreError, match=r"nothing under key 'emma'.*\['model', 'ema'\]"):
        read_checkpoint(tmp_path / "a.pt", key="emma")


def test_of_two_sets_of_weights_the_warning_names_the_one_that_is_read(tmp_path):
    """Moments of averages are no moments of iterates: their scatter is far too small."""
    layout = ParamLayout(Net())
    iterate, average = stepped(Net(), 3), stepped(Net(), 99)
    for name, other in (("current_model_state", "state_dict"), ("state_dict", "state_dict_ema")):
        path = tmp_path / f"{other}.ckpt"
        torch.save({name: iterate.state_dict(), other: average.state_dict()}, path)
        with pytest.warns(UserWarning, match=f"{name!r} was taken, and not {other!r}"):
            assert torch.equal(
                Trajectory.from_checkpoints(path, layout)[0].weights, layout.flatten(iterate)
            )
        traj = Trajectory.from_checkpoints(path, layout, key=other)
        assert torch.equal(traj[0].weights, layout.flatten(average))


@pytest.mark.parametrize("end", ["safetensors", "pt", "old.pt"])
def test_files_that_are_cut_off_say_so(tmp_path, end):
    path = tmp_path / f"step-1.{end}"
    if end == "safetensors":
        save_file(Net().state_dict(), path)
    else:
        torch.save(Net().state_dict(), path, _use_new_zipfile_serialization=end == "pt")
    whole = path.read_bytes()
    for left in (len(whole) - 9, len(whole) // 2, 3, 0):
        path.write_bytes(whole[:left])
        with pytest.raises(StoreError, match=rf"step-1.{end}.*(cut off|damaged)"):
            read_checkpoint(path)


def test_reading_pickled_code_does_not_run_it(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": Net().state_dict(), "trap": Trap()}, tmp_path / "a.pt")
    with pytest.raises(StoreError, match=r"run code when they are read.*save_file\(torch\.load"):
        read_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "a.pt", weights_only=False)  # a broken twin
    assert (tmp_path / "ran").exists()
