"""The log of a training run: the losses of the epoch under way, and a row for each epoch done."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lowland.errors import NonFiniteError
from lowland.records import TrainingLog

_CHECK_EVERY = 32  # steps between reads of the loss on a GPU, where each read waits for it


class EpochLog:
    """The metrics of each epoch, and the mean loss of the present one.

    Attributes:
        columns: of the epochs done, by name. sums: of the epoch under way: losses of all items,
            items and seconds.

    >>> log = EpochLog()
    >>> for batch, loss in enumerate((1.0, 2.0)):
    ...     log.add(torch.tensor(loss), 4, step=batch, epoch=0, batch=batch)
    >>> log.close(epoch=0, lr=0.1, metrics={})
    >>> log.columns["loss"], log.columns["lr"]
    ([1.5], [0.1])
    """

    def __init__(self) -> None:
        self.columns: dict[str, Any] = {}
        self.sums: dict[str, Any] = {"loss": 0.0, "items": 0.0, "seconds": 0.0}
        self._unchecked: list[tuple[Tensor, int, str]] = []

    def add(self, loss: Tensor, items: int, *, step: int, epoch: int, batch: int) -> None:
        """Adds the mean loss of a batch; with no items it is checked alone."""
        place = f"step {step + 1} (epoch {epoch + 1}, batch {batch + 1})"
        self._unchecked.append((loss, items, place))
        if loss.device.type == "cpu" or len(self._unchecked) >= _CHECK_EVERY:
            self.check()

    def check(self) -> None:
        """Sums the losses; raises `NonFiniteError` for one that is not finite."""
        for loss, items, place in self._unchecked:
            value = loss.item()
            if not math.isfinite(value):
                raise NonFiniteError(
                    f"the loss is {value} at {place}; lower the learning rate, or check that "
                    "batch: its inputs may hold NaN. The last checkpoint and the iterates stored "
                    "before it are whole."
                )
            self.sums["loss"] += value * items
            self.sums["items"] += items
        self._unchecked.clear()

    def close(self, epoch: int, lr: float, metrics: Mapping[str, float]) -> None:
        """Adds the row of an epoch, counted from 0: number, mean loss, learning rate, seconds, and
        these metrics."""
        row = {
            "epoch": epoch + 1.0,
            "loss": self.sums["loss"] / max(self.sums["items"], 1.0),
            "lr": lr,
            "seconds": self.sums["seconds"],
            **metrics,
        }
        before = len(self.columns.get("epoch", ()))
        for name, value in row.items():  # a metric may come later than the first epoch
            self.columns.setdefault(name, [math.nan] * before).append(value)
        for values in self.columns.values():
            values.extend([math.nan] * (before + 1 - len(values)))
        self.sums = dict.fromkeys(self.sums, 0.0)

    def record(self) -> TrainingLog:
        """The epochs done."""
        return TrainingLog(
            {k: torch.tensor(v, dtype=torch.float64) for k, v in self.columns.items()}
        )
