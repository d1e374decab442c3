"""What the three kinds of training have in common: how long, by which rule, and what is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lowland import checks
from lowland.artifacts import Checkpoint
from lowland.files import PathLike
from lowland.train.batches import Batches, length


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
    autocast: bool | str | torch.dtype | None = None
    channels_last: bool = False
    accumulate: int = 1
    clip: float | None = None
    drop_last: bool = False
    seed: int = 0
    checkpoint: Checkpoint | PathLike | None = None
    checkpoint_steps: int | None = None

    def __post_init__(self) -> None:
        values: dict[str, float] = {
            "epochs": checks.whole("epochs", self.epochs, least=1),
            "accumulate": checks.whole("accumulate", self.accumulate, least=1),
            "seed": checks.seed(self.seed),
        }
        if self.clip is not None:
            values["clip"] = checks.number("clip", self.clip, above=0)
        if self.checkpoint_steps is not None:
            every = checks.whole("checkpoint_steps", self.checkpoint_steps, least=1)
            values["checkpoint_steps"] = every
        for name, value in values.items():
            object.__setattr__(self, name, value)


def described(data: Any, optimizer: Optimizer, schedule: LRScheduler | None) -> dict[str, Any]:
    """Batches and the rule of training in plain data."""
    groups = [
        ", ".join(f"{k}={v}" for k, v in group.items() if k != "params")
        for group in optimizer.param_groups
    ]
    own = ("rows", "batch_size", "shuffle", "seed", "drop_last")
    return {
        "batches": length(data),
        "data": {k: getattr(data, k) for k in own} if isinstance(data, Batches) else None,
        "rows": data.content() if isinstance(data, Batches) else None,
        "optimizer": f"{type(optimizer).__name__}({'; '.join(groups)})",
        "schedule": f"{type(schedule).__name__}{_plain(schedule)}",
    }


def _plain(schedule: LRScheduler | None) -> str:
    """A schedule's numbers as it is made; functions that it may hold are not told apart."""
    if schedule is None:
        return ""
    kinds = (int, float, str, list, tuple)
    held = {k: v for k, v in schedule.state_dict().items() if isinstance(v, kinds)}
    shown = (f"{k}={v}" for k, v in sorted(held.items()) if " at 0x" not in str(v))
    return f"({', '.join(shown)})"


def plain_sgd(parameters: Iterable[nn.Parameter]) -> Optimizer:
    """What trains where no optimizer is given."""
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
