"""How learning rate, metrics and distance went over cycles."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lowland.errors import DataError
from lowland.records.base import Record


@dataclass(frozen=True, eq=False)
class CycleSeries(Record):
    r"""Series over the iterations of a training run in cycles (figure 3 of Garipov et al. 2018).

    Attributes:
        step: (n,), the steps after which the network was evaluated.
        distance: (n,), \(\|w - w_0\|\) from the weights at the start.
        metrics: (n,) each, by name: error or rmse, and nll.
        lr_step: (k,), more steps, for the learning rate. lr: (k,), that of the step before.
        members: (m,), the steps after which members were collected.
        ends: (c,), the steps after which cycles ended.
        split: the examples of the metrics, such as "test".

    Raises:
        DataError: series of different lengths.
    """

    figure = "cycles"

    step: Tensor
    distance: Tensor
    metrics: dict[str, Tensor]
    lr_step: Tensor
    lr: Tensor
    members: Tensor
    ends: Tensor
    split: str = ""

    def __post_init__(self) -> None:
        evaluated = {"step": self.step, "distance": self.distance, **self.metrics}
        for series in (evaluated, {"lr_step": self.lr_step, "lr": self.lr}):
            lengths = {name: len(values) for name, values in series.items()}
            if len(set(lengths.values())) > 1:
                raise DataError(f"expected series of one length, got {lengths}.")
