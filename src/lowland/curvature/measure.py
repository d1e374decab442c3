"""The contract of sharpness measures: losses around w, and how much they are above that at w.

A measure is a class whose options are arguments; the radius, the seed and how weights are evaluated
are those of `sharpness`. To add one: a file with the class, and a line in `sharpness.MEASURES`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from lowland import checks
from lowland.core import LossSurface
from lowland.curvature.ascent import ascend, random_start
from lowland.curvature.objective import Objective


class Measure(ABC):
    """A measure of sharpness.

    Attributes:
        name: the name for `ll.sharpness`. radius: default radii. worst: whether the value is the
            largest of the restarts', or their mean.
    """

    name: ClassVar[str]
    radius: tuple[float, ...]
    worst: bool = True

    @abstractmethod
    def losses(
        self, objective: Objective, radius: float, seed: int, *, first: int = 0
    ) -> Iterator[list[float]]:
        """A loss around w for each restart or direction, from number `first` on, in the parts that
        a checkpoint stores."""

    def rise(self, loss: Tensor, at_w: float) -> Tensor:
        """The sharpness of losses; a difference in nats."""
        return loss - at_w

    def prepare(self, surface: LossSurface) -> LossSurface:
        """The surface to measure on."""
        return surface

    def settings(self) -> dict[str, int | float | str | bool | None]:
        """The options, for the record."""
        own = {k: v for k, v in vars(self).items() if k not in ("radius", "worst")}
        return {k: str(v) if v == math.inf else v for k, v in own.items()}


class WorstCase(Measure):
    r"""The largest loss in \(\{T u : |u|_p \le \rho\}\), by projected ascent: a lower bound.

    The first restart begins at w, the others at random.

    Args:
        steps: of ascent. restarts: number of ascents. norm: p, 2 or infinity.
    """

    def __init__(self, *, steps: int, restarts: int, norm: float) -> None:
        self.steps = checks.whole("steps", steps, least=1)
        self.restarts = checks.whole("restarts", restarts, least=1)
        checks.choice("norm", norm, (2, math.inf))
        self.norm = float(norm)

    def scale(self, weights: Tensor) -> Tensor | float:
        """T, (P,) or one number for all weights."""
        return 1.0

    def losses(
        self, objective: Objective, radius: float, seed: int, *, first: int = 0
    ) -> Iterator[list[float]]:
        for number in range(first, self.restarts):
            yield [self.maximum(objective, radius, seed, number)]

    def maximum(self, objective: Objective, radius: float, seed: int, number: int) -> float:
        """The largest loss that a restart reaches."""
        # at an exact minimum no direction ascends
        stationary = not bool(torch.any(objective.gradient))
        start = None
        if number > 0 or stationary:
            start = random_start(objective.weights, radius, self.norm, seed=seed, number=number)
        return ascend(
            objective,
            radius,
            scale=self.scale(objective.weights),
            norm=self.norm,
            steps=self.steps,
            start=start,
        )
