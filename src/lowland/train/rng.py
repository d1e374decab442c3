"""The global random states that a training run depends on: of torch, NumPy and Python."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


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
    """Restores what `rng_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])


@contextmanager
def fork_global_rng(seed: int) -> Iterator[None]:
    """Seeds the global random states inside, and restores the caller's after.

    >>> with fork_global_rng(3):
    ...     a = torch.rand(1), random.random()
    >>> with fork_global_rng(3):
    ...     b = torch.rand(1), random.random()
    >>> a == b
    True
    """
    before = rng_state()
    seed_all(seed)
    try:
        yield
    finally:
        set_rng_state(before)


def seed_all(seed: int) -> None:
    """Seeds the global generators of torch, NumPy and Python."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # without devices, of which each would make a note of the whole stack
        torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
