"""What the three kinds of training have in common: how long, by which rule, and what is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lowland.errors import ConfigError
from lowland.files import PathLike


class Collects(Protocol):
    """What takes iterates after each step: see `lowland.Collector`."""

    def step(self, model: nn.Module) -> bool: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Options:
    """How a run trains: see `sgd`.

    Raises:
        ConfigError: a number of epochs, batches or steps that is less than one.
    """

    epochs: int
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None
    schedule: Callable[[Optimizer], LRScheduler] | None = None
    collectors: Sequence[Collects] = ()
    validate: Callable[[Any], Mapping[str, float]] | None = None
    device: torch.device | str | None = None
    autocast: bool | torch.dtype | None = None
    channels_last: bool = False
    accumulate: int = 1
    clip: float | None = None
    seed: int = 0
    checkpoint: PathLike | None = None
    checkpoint_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "accumulate", "checkpoint_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: expected at least 1, got {value}.")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ConfigError(f"clip: expected a positive norm, got {self.clip}.")
