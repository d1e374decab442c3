"""What a training run depends on beside its settings: model tensors and random states."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lowland.core.layout import clean_names, named_state
from lowland.errors import ConfigError


def digest(vectors: Tensor, *more: Tensor) -> str:
    """A short hash of weight vectors (n, P), and of other tensors, for settings."""
    hashed = hashlib.blake2b(digest_size=8)
    for vector in (*vectors, *more):
        hashed.update(vector.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def rng_state() -> dict[str, Any]:
    """The global random states of torch, NumPy and Python."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - what users' data sets draw from
    return {
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else [],
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *map(_plain, rest)),
        "python": random.getstate(),
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Goes back to what `rng_state` gave."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global random states inside, and gives the caller's back after."""
    before = rng_state()
    seed_all(seed)
    try:
        yield
    finally:
        set_rng_state(before)


def seed_all(seed: int) -> None:
    """Seeds the global generators of torch, NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, without wrappers' prefixes; buffers that a state dict leaves
    out too, since training may go on from them."""
    return {name: tensor.detach() for name, tensor in named_state(model, aliases=False).items()}


@torch.no_grad()
def restore(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Writes what `tensors_of` gave into a model, wrapped or not."""
    empty: dict[str, nn.Module] = {}  # buffers that are None until a forward pass fills them
    for prefix, module in model.named_modules():
        for key, buffer in module._buffers.items():
            if buffer is None:
                empty[f"{prefix}.{key}" if prefix else key] = module
    device = next(model.parameters()).device
    for name, tensor in named_state(model, aliases=False).items():
        if name not in tensors:
            raise ConfigError(
                f"the checkpoint is of another model: it has no {name}; name another checkpoint, "
                "or delete it to start anew."
            )
        tensor.copy_(tensors[name])
    for name, short in clean_names(empty).items():
        if short in tensors:
            empty[name]._buffers[name.rpartition(".")[2]] = tensors[short].to(device, copy=True)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
