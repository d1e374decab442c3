"""Names of tensors in checkpoint files: prefixes, ties, and layouts without the model."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lowland import (
    SWA,
    SWAG,
    ConfigError,
    LayoutError,
    ParamLayout,
    StoreError,
    Trajectory,
)
from lowland.trajectory import read_checkpoint
from lowland.trajectory.checkpoint_tensors import (
    checkpoint_files,
    layout_of,
    match_layout,
    require_alike,
)
from tests.trajectory.files import lightning_file, sharded
from tests.trajectory.nets import Net, stepped


def test_the_prefix_of_the_network_is_left_out(tmp_path):
    copy = {f"ema_net.{n}": t for n, t in stepped(Net(), 99).state_dict().items()}
    lightning_file(tmp_path / "a.ckpt", 3, more=copy | {"loss.weight": torch.ones(2)})
    layout = ParamLayout(Net())
    traj = Trajectory.from_checkpoints(tmp_path / "a.ckpt", layout)
    assert torch.equal(traj[0].weights, layout.flatten(stepped(Net(), 3)))
    assert traj[0].buffers.keys() == dict(Net().named_buffers()).keys()
    averaged = Trajectory.from_checkpoints(tmp_path / "a.ckpt", layout, prefix="ema_net.")
    assert torch.equal(averaged[0].weights, layout.flatten(stepped(Net(), 99)))
    with pytest.raises(ConfigError, match=r"no name begins with prefix 'nett\.'.*ema_net\., loss"):
        Trajectory.from_checkpoints(tmp_path / "a.ckpt", layout, prefix="nett.")[0]


def test_two_networks_that_fit_alike_raise(tmp_path):
    other = {f"critic.{n}": t for n, t in stepped(Net(), 99).state_dict().items()}
    lightning_file(tmp_path / "a.ckpt", 3, more=other)
    with pytest.raises(LayoutError, match=r"a.ckpt: .*net\., critic\. fit alike; .*prefix="):
        Trajectory.from_checkpoints(tmp_path / "a.ckpt", ParamLayout(Net())).swa()


def test_weights_that_are_not_floating_point_are_no_weights(tmp_path):
    """Codes of quantised weights were averaged as numbers."""
    state = Net().state_dict() | {"first.weight": torch.ones(4, 5, dtype=torch.int8)}
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(LayoutError, match=r"a.pt: first.weight: .*got torch.int8; dequantise"):
        Trajectory.from_checkpoints(tmp_path / "a.pt", ParamLayout(Net())).swa()
    scaled = state | {"first.weight_scale": torch.full((4, 1), 0.5)}
    torch.save(scaled, tmp_path / "b.pt")
    traj = Trajectory.from_checkpoints(tmp_path / "b.pt", ParamLayout(Net()))
    assert traj.swa()[:20].tolist() == [0.5] * 20


def test_packed_parameters_of_quantised_modules_are_not_passed_over(tmp_path):
    packed = {"fc.bias": torch.ones(2), "fc._packed_params._packed_params": (torch.ones(2), None)}
    torch.save({"state_dict": packed}, tmp_path / "a.pt")
    with pytest.raises(StoreError, match=r"a.pt: fc._packed_params\S+ holds tensors in a tuple"):
        read_checkpoint(tmp_path / "a.pt")


def test_tied_weights_that_a_file_has_once_still_fit():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(4, 3)
            self.head = nn.Linear(3, 4, bias=False)
            self.head.weight = self.embed.weight

    layout = ParamLayout(Tied())
    once = {"net.head.weight": torch.ones(4, 3)}
    assert torch.equal(layout.flatten(match_layout(once, layout)), torch.ones(12))


def test_a_layout_from_a_file_has_everything_but_statistics(tmp_path):
    torch.save(Net().state_dict(), tmp_path / "a.pt")
    layout = layout_of(read_checkpoint(tmp_path / "a.pt"))
    assert layout.fingerprint == ParamLayout(Net()).fingerprint
    assert layout_of(Net().state_dict(), where="^last").names == ("last.weight", "last.bias")
    with pytest.raises(LayoutError, match="no floating-point tensor to average"):
        layout_of({"norm.running_var": torch.ones(3), "step": torch.tensor(3)})


def test_tied_weights_of_a_torch_file_count_once(tmp_path):
    weight = torch.randn(3, 2)
    torch.save({"a": weight, "b": weight, "c": weight.clone(), "e": weight[:1]}, tmp_path / "t.pt")
    layout = layout_of(read_checkpoint(tmp_path / "t.pt"))
    assert layout.names == ("a", "c", "e")
    assert layout.aliases == {"b": "a"}


def test_moments_made_without_the_model_are_put_in_its_order(tmp_path):
    """Safetensors files lose the model's order; moments as they are would be wrong weights."""
    for seed in range(4):
        save_file(stepped(Net(), seed).state_dict(), tmp_path / f"{seed}.safetensors")
    loose = layout_of(read_checkpoint(tmp_path / "0.safetensors"))
    ours = ParamLayout(Net())
    assert loose.fingerprint != ours.fingerprint
    SWAG.save(Trajectory.from_checkpoints(tmp_path, loose).swag(rank=2), tmp_path / "s")
    swag = SWAG.load(tmp_path / "s", layout=ours)
    expected = Trajectory.from_checkpoints(tmp_path, ours).swag(rank=2)
    for name in ("mean", "variance", "deviations"):
        assert torch.equal(getattr(swag, name), getattr(expected, name))
    assert not torch.equal(SWAG.load(tmp_path / "s").mean, expected.mean)  # a broken twin
    assert torch.equal(swag.posterior().draw(3), expected.posterior().draw(3))
    with pytest.raises(LayoutError, match=r"another model: first.weight is missing"):
        SWAG.load(tmp_path / "s", layout=ParamLayout(Net(features=6)))


def test_moments_of_tied_weights_that_a_file_has_under_their_other_name(tmp_path):
    """Transformers writes the embedding and leaves out the head that is tied to it."""
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False))
    model[1].weight = model[0].weight
    ours = ParamLayout(model)
    assert (ours.names, dict(ours.aliases)) == (("0.weight",), {"1.weight": "0.weight"})
    swa = SWA(layout_of({"1.weight": model[1].weight}))
    swa.update({"1.weight": model[1].weight})
    swa.save(tmp_path / "s")
    assert torch.equal(SWA.load(tmp_path / "s", layout=ours).mean, ours.flatten(model))


def test_checkpoints_of_two_models_raise():
    a = Net().state_dict()
    with pytest.raises(LayoutError, match=r"first.weight is \(4, 5\) in a and \(4, 6\) in b"):
        require_alike(a, Net(features=6).state_dict(), names=("a", "b"))
    fewer = {n: t for n, t in a.items() if n != "last.bias"}
    with pytest.raises(LayoutError, match=r"a has last.bias, which b lacks"):
        require_alike(a, fewer, names=("a", "b"))
    with pytest.raises(LayoutError, match=r"b has last.bias, which a lacks"):
        require_alike(fewer, a, names=("a", "b"))
    require_alike(a, Net().state_dict(), names=("a", "b"))


def test_shards_that_are_missing_are_named(tmp_path):
    sharded(tmp_path, Net().state_dict())
    index = tmp_path / "model.safetensors.index.json"
    assert len(read_checkpoint(index)) == len(Net().state_dict())
    save_file({"other": torch.ones(1)}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(StoreError, match=r"index.json: 4 of its tensors, such as first.weight"):
        read_checkpoint(index)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(StoreError, match=r"model-00002-of-00002.safetensors: no such file"):
        read_checkpoint(index)
    index.write_text("{}")
    with pytest.raises(StoreError, match="weight_map: expected dict"):
        read_checkpoint(index)


def test_the_files_of_a_checkpoint(tmp_path):
    sharded(tmp_path, Net().state_dict())
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = tmp_path / "model.safetensors.index.json"
    assert checkpoint_files(index) == [index, *(tmp_path / name for name in names)]
    assert checkpoint_files(tmp_path / names[0]) == [tmp_path / names[0]]


def test_an_index_does_not_lead_out_of_its_folder(tmp_path):
    save_file({"w": torch.ones(1)}, tmp_path / "secret.safetensors")
    (tmp_path / "in").mkdir()
    index = tmp_path / "in" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "../secret.safetensors"}}))
    with pytest.raises(StoreError, match=r"not a plain name of a file"):
        read_checkpoint(index)
