"""What a training run has left, as a trajectory: found, put in order, read without pickle."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lowland import (
    SWAG,
    NonFiniteError,
    ParamLayout,
    StoreError,
    Trajectory,
)
from lowland.trajectory import find_checkpoints
from lowland.trajectory.checkpoint_files import in_order
from tests.trajectory.files import lightning_file, sharded
from tests.trajectory.nets import Net, stepped


def files(path):
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())


# -- checkpoints that are there already ------------------------------------------------------------


def checkpoint(kind, path, model):
    if kind == "safetensors":
        save_file(model.state_dict(), path)
    elif kind == "plain":
        torch.save(model.state_dict(), path)
    elif kind == "old format":
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
    elif kind == "data parallel":
        torch.save(nn.DataParallel(model).state_dict(), path)
    else:  # the key that a training script put it under
        torch.save({"epoch": 3, kind: model.state_dict(), "optimizer": {"state": {}}}, path)


KINDS = [
    "safetensors",
    "plain",
    "old format",
    "data parallel",
    "state_dict",
    "model",
    "model_state_dict",
]


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_are_a_trajectory_in_natural_order(tmp_path, kind):
    end = ".safetensors" if kind == "safetensors" else ".pt"
    for i in (2, 9, 10, 100):
        checkpoint(kind, tmp_path / f"step-{i}{end}", stepped(Net(), i))
    layout = ParamLayout(Net())
    store = Trajectory.from_checkpoints(str(tmp_path / f"step-*{end}"), layout)
    expected = [layout.flatten(stepped(Net(), i)) for i in (2, 9, 10, 100)]
    assert [int(p.buffers["norm.num_batches_tracked"]) for p in store] == [2, 9, 10, 100]
    for point, w in zip(store, expected, strict=True):
        assert torch.equal(point.weights, w)
        assert point.buffers.keys() == dict(Net().named_buffers()).keys()
    torch.testing.assert_close(store.swa(), torch.stack(expected).mean(0))
    assert len(store.ensemble().sample(4)) == 4


def test_a_list_of_checkpoints_keeps_its_order(tmp_path):
    paths = [tmp_path / f"{i}.pt" for i in (3, 1, 2)]
    for i, path in zip((3, 1, 2), paths, strict=True):
        checkpoint("plain", path, stepped(Net(), i))
    store = Trajectory.from_checkpoints(paths, ParamLayout(Net()))
    assert [int(p.buffers["norm.num_batches_tracked"]) for p in store] == [3, 1, 2]


def test_copies_beside_numbered_files_are_left_out(tmp_path):
    for i in (1, 2, 3):
        checkpoint("plain", tmp_path / f"epoch_{i}.pt", stepped(Net(), i))
    for name in ("best", "model_last"):
        checkpoint("plain", tmp_path / f"{name}.pt", stepped(Net(), 3))
    with pytest.warns(UserWarning, match=r"best.pt, model_last.pt: taken for copies"):
        store = Trajectory.from_checkpoints(tmp_path, ParamLayout(Net()))
    assert [int(p.buffers["norm.num_batches_tracked"]) for p in store] == [1, 2, 3]
    by_name = Trajectory.from_checkpoints(sorted(tmp_path.glob("*.pt")), ParamLayout(Net()))
    assert len(by_name) == 5


# -- folders ---------------------------------------------------------------------------------------


def trainer_folder(root, steps=(500, 1000, 2000), shards=False):
    """As the Hugging Face Trainer writes it."""
    for step in steps:
        folder = root / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        tensors = stepped(Net(), step).state_dict()
        if shards:
            sharded(folder, tensors)
        else:
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text('{"model_type": "net"}')
        (folder / "trainer_state.json").write_text("{}")
        torch.save({"state": {0: torch.ones(3)}}, folder / "optimizer.pt")
        torch.save({"seed": 1}, folder / "rng_state.pth")
    return root


def seeds(traj):
    return [int(p.buffers["norm.num_batches_tracked"]) for p in traj]


@pytest.mark.parametrize("shards", [False, True])
def test_a_folder_of_the_hugging_face_trainer(tmp_path, shards):
    root = trainer_folder(tmp_path / "out", shards=shards)
    save_file(stepped(Net(), 7).state_dict(), root / "model.safetensors")  # save_model at the end
    layout = ParamLayout(Net())
    traj = Trajectory.from_checkpoints(root, layout)
    assert traj.steps == [500, 1000, 2000] == seeds(traj)
    expected = torch.stack([layout.flatten(stepped(Net(), s)) for s in traj.steps])
    for point, w in zip(traj, expected, strict=True):
        assert torch.equal(point.weights, w)
    torch.testing.assert_close(traj.swa(), expected.double().mean(0).float())
    one = find_checkpoints(root / "checkpoint-1000")
    assert [(c.path.parent.name, c.step) for c in one] == [("checkpoint-1000", 1000)]


def test_a_checkpoint_of_the_trainer_that_was_cut_off_is_not_passed_over(tmp_path):
    trainer_folder(tmp_path)
    last = tmp_path / "checkpoint-2000"
    for file in last.iterdir():
        if file.name.startswith("model"):
            file.unlink()
    with pytest.raises(StoreError, match=r"checkpoint-2000 has none of .* cut off"):
        find_checkpoints(tmp_path)


def test_a_folder_of_lightning(tmp_path):
    place = tmp_path / "lightning_logs" / "version_0" / "checkpoints"
    for step in (10, 20, 100):
        lightning_file(place / f"epoch={step // 10}-step={step}.ckpt", step)
    lightning_file(place / "last.ckpt", 100)  # the same step again: it must not count twice
    layout = ParamLayout(Net())
    for folder in (tmp_path, place.parent, place, tmp_path / "lightning_logs"):
        traj = Trajectory.from_checkpoints(folder, layout)
        assert traj.steps == [10, 20, 100] == seeds(traj)
    twice = torch.stack([layout.flatten(stepped(Net(), s)) for s in (10, 20, 100, 100)]).mean(0)
    assert not torch.allclose(traj.swa(), twice)  # a broken twin
    lightning_file(place / "last.ckpt", 130)
    assert Trajectory.from_checkpoints(place, layout).steps == [10, 20, 100, 130]


def test_lightning_files_without_steps_in_their_names_are_read_for_them(tmp_path):
    for step, loss in ((30, 0.31), (9, 0.52), (100, 0.2)):
        lightning_file(tmp_path / f"epoch={step // 10}-val_loss={loss}.ckpt", step)
    assert [c.step for c in find_checkpoints(tmp_path)] == [9, 30, 100]


def test_the_checkpoints_of_two_runs_are_not_mixed(tmp_path):
    for version in (0, 1):
        lightning_file(tmp_path / f"version_{version}" / "checkpoints" / "step=10.ckpt", 10)
    with pytest.raises(StoreError, match=r"2 runs: .*version_0.*version_1.*; name one"):
        find_checkpoints(tmp_path)
    lightning_file(tmp_path / "version_0" / "checkpoints" / "step=10-v1.ckpt", 10)
    with pytest.raises(StoreError, match="both of step 10"):
        find_checkpoints(tmp_path / "version_0")


def test_a_folder_of_a_training_script(tmp_path):
    for step in (9, 10, 100):
        torch.save(stepped(Net(), step).state_dict(), tmp_path / f"net_{step}.pt")
    torch.save({"state": {}}, tmp_path / "optimizer.pt")
    traj = Trajectory.from_checkpoints(tmp_path, ParamLayout(Net()))
    assert traj.steps == [9, 10, 100] == seeds(traj)


def test_a_folder_of_pth_tar_files(tmp_path):
    """Endings of two parts, as the examples of torch have them, beside copies and averages."""
    for step in (9, 10, 100):
        content = {"epoch": step, "state_dict": stepped(Net(), step).state_dict()}
        torch.save(content, tmp_path / f"checkpoint-{step}.pth.tar")
    torch.save({"state": {}}, tmp_path / "opt000100.pth.tar")
    for name in ("model_best.pth.tar", "ema_0.999_100.pth.tar"):
        torch.save({"state_dict": stepped(Net(), 7).state_dict()}, tmp_path / name)
    with pytest.warns(UserWarning, match=r"ema_0.999_100.pth.tar, model_best.pth.tar: taken for"):
        traj = Trajectory.from_checkpoints(tmp_path, ParamLayout(Net()))
    assert traj.steps == [9, 10, 100] == seeds(traj)


def test_folders_without_checkpoints_say_what_was_looked_for(tmp_path):
    with pytest.raises(StoreError, match=r"is empty: looked for checkpoint-\*/model.safetensors"):
        find_checkpoints(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"holds no checkpoint: .*\(Lightning\)"):
        find_checkpoints(tmp_path)
    (tmp_path / "checkpoint-5").mkdir()
    with pytest.raises(StoreError, match=r"checkpoint-5 has none of model.safetensors"):
        find_checkpoints(tmp_path)
    Trajectory.create(tmp_path / "walk", ParamLayout(Net()))
    with pytest.raises(StoreError, match=r"lowland's own; open it with Trajectory.open"):
        find_checkpoints(tmp_path / "walk")
    with pytest.raises(StoreError, match="no checkpoint was given"):
        find_checkpoints([])


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("epoch=3-step=40.ckpt", 40),
        ("step_9.pt", 9),
        ("ckpt-12.pt", 12),
        ("resnet50-epoch-7-loss0.25.pt", 7),
        ("resnet50-0.25.pt", None),
        ("last.ckpt", None),
        ("net_9.safetensors", 9),
        ("checkpoint-3.pth.tar", 3),
        ("resnet50-0.25.pth.tar", None),
    ],
)
def test_steps_are_read_from_names(tmp_path, name, step):
    assert find_checkpoints(tmp_path / name)[0].step == step


def test_files_named_in_any_order_are_put_in_order(tmp_path):
    names = ["a-10.pt", "a-9.pt", "a-100.pt"]
    checkpoints = find_checkpoints([tmp_path / n for n in names])
    assert [c.path.name for c in checkpoints] == names
    assert [c.step for c in in_order(checkpoints)] == [9, 10, 100]
    others = find_checkpoints([tmp_path / n for n in ("b10x2.pt", "b9x2.pt", "last.pt")])
    assert [c.path.name for c in in_order(others)] == ["b9x2.pt", "b10x2.pt", "last.pt"]


# -- what is read from them -----------------------------------------------------------------------


def test_swag_of_checkpoints_is_the_offline_covariance(tmp_path):
    for seed in range(6):
        save_file(stepped(Net(), seed).state_dict(), tmp_path / f"{seed}.safetensors")
    layout = ParamLayout(Net())
    swag = Trajectory.from_checkpoints(tmp_path, layout).swag(rank=6)
    w = torch.stack([layout.flatten(stepped(Net(), s)).double() for s in range(6)])
    running = torch.stack([w[: i + 1].mean(0) for i in range(6)])
    torch.testing.assert_close(swag.mean.double(), w.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(swag.variance.double(), w.var(0, correction=0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(swag.deviations.double(), w - running, rtol=1e-5, atol=1e-6)


def test_nan_raises_with_the_name_of_its_file(tmp_path):
    for seed in range(3):
        tensors = stepped(Net(), seed).state_dict()
        if seed == 1:
            tensors["last.bias"][0] = float("nan")
        save_file(tensors, tmp_path / f"{seed}.safetensors")
    with pytest.raises(NonFiniteError, match=r"1.safetensors: .*last.bias"):
        Trajectory.from_checkpoints(tmp_path, ParamLayout(Net())).swa()


def test_one_pass_feeds_several_averages_and_reports_progress(tmp_path):
    for seed in range(3):
        save_file(stepped(Net(), seed).state_dict(), tmp_path / f"{seed}.safetensors")
    layout = ParamLayout(Net())
    traj = Trajectory.from_checkpoints(tmp_path, layout)
    calls = []
    first, second = SWAG(layout, rank=2), SWAG(layout, rank=0)
    traj.into(first, second, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert torch.equal(first.mean, traj.swa())
    assert torch.equal(first.variance, second.variance)
