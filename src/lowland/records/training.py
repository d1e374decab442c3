"""How a training run went."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from lowland.records.base import Record


@dataclass(frozen=True, eq=False)
class TrainingLog(Record):
    """A training run, one entry per epoch; `averages` holds other curves over epochs, by name.

    `columns`: epoch (epochs done), loss (mean over the epoch, training mode), lr, seconds, and the
    values of the `validate` function. `averages`: {name: {"epoch": (m,), "nll": (m,)}}.
    """

    figure = "training"
    columns: dict[str, Tensor]
    averages: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """The total training time, over all resumed parts."""
        return float(self.columns["seconds"].sum())
