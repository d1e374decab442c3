"""How much the loss rises near a minimum, and how far from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lowland.records.base import Record


@dataclass(frozen=True, eq=False)
class SharpnessResult(Record):
    """The sharpness of a minimum, by one measure: `float(result)` is that at the first radius.

    Attributes:
        kind: the measure, see `ll.sharpness`. radius: (r,).
        value: (r,), the sharpness, in nats, of "keskar" in percent.
        interval: (r, 2). Of a maximum, the range over restarts, whose upper end is the value; of a
            mean over directions or subspaces, Student's interval at 95%.
        values: (r, n), of each restart or direction.
        loss, gradient_norm: L(w) and the norm of its gradient: w is a minimum where it is near 0.
        invariant: whether the value remains, to a thousandth, where one layer is multiplied by 1/2
            and by 2 and the next divided by it; None: it was not measured, or the network has no
            such layers. rescaled: (2,), the values of these networks.
        nonfinite: how many losses near w were NaN or infinite; the sharpness is then infinite.
        evaluations: of the loss, or of its gradient.
        batchnorm: the policy of BatchNorm statistics, "none" for models without any.
        examples: how many examples the loss is over.
        settings: options of the measure.
    """

    figure = "sharpness"
    kind: str
    radius: Tensor
    value: Tensor
    interval: Tensor
    values: Tensor
    loss: float
    gradient_norm: float
    invariant: bool | None = None
    rescaled: Tensor | None = None
    nonfinite: int = 0
    evaluations: int = 0
    batchnorm: str = "refresh"
    examples: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    def __float__(self) -> float:
        return float(self.value[0])


@dataclass(frozen=True, eq=False)
class WidthsResult(Record):
    """The loss along rays from w, and the distance at which it has risen by a given amount.

    Attributes:
        directions: what the rays are: "filter-normalised", "plain" or "given".
        t: (m,), coordinates along each ray, in units of its direction.
        metrics: {name: (n, m)}: "loss", and "error" or "rmse" of each ray's points; with a loader
            "test_loss" and so on.
        width: (n,), the t at which the loss has risen by `rise`; infinite where it does not within
            the last t. tolerance: by which it may be too large.
        length: (n,), the norms of the directions: `width * length` is a distance.
        loss, gradient_norm: L(w) and the norm of its gradient.
        invariant: whether the losses remain where one layer is multiplied by 1/2 and by 2 and the
            next divided by it; None: the network has no such layers, or the rays were given.
        batchnorm: the policy of BatchNorm statistics, "none" for models without any.
        examples: how many examples the loss is over.
    """

    figure = "widths"
    directions: str
    t: Tensor
    metrics: dict[str, Tensor]
    width: Tensor
    tolerance: float
    rise: float
    length: Tensor
    loss: float
    gradient_norm: float
    invariant: bool | None = None
    batchnorm: str = "refresh"
    examples: int = 0

    @property
    def distance(self) -> Tensor:
        """(n,), the Euclidean distance from w at which the loss has risen by `rise`."""
        return self.width * self.length
