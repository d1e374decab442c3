"""Checkpoint files as trainers of others write them."""

import json

import torch
from safetensors.torch import save_file

from tests.trajectory.nets import Net, stepped


def sharded(folder, tensors):
    names = sorted(tensors)
    parts = [names[::2], names[1::2]]
    where = {}
    for i, part in enumerate(parts, start=1):
        file = f"model-0000{i}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        where |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def lightning_file(path, step, *, prefix="net.", more=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {prefix + name: t for name, t in stepped(Net(), step).state_dict().items()}
    content = {"epoch": step // 10, "global_step": step, "state_dict": state | (more or {})}
    torch.save(content | {"optimizer_states": [{"state": {0: torch.ones(3)}}]}, path)
