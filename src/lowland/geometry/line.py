"""The straight line between two weight vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from lowland import checks
from lowland.core.point import Point
from lowland.errors import ConfigError
from lowland.geometry.curve import Curve, require_apart
from lowland.geometry.stacking import stack_weight_buffers, stack_weights


class Line(Curve):
    r"""\(w(t) = (1 - t)\, w_0 + t\, w_1\), both ends fixed.

    Raises:
        ConfigError: ends that are equal. LayoutError: weights of different models.

    >>> line = Line(torch.zeros(2), torch.tensor([3.0, 4.0]))
    >>> line([[0.0], [0.5]]), line.length()
    (tensor([[0.0000, 0.0000],
            [1.5000, 2.0000]]), 5.0)
    """

    def __init__(self, w0: Tensor | Point, w1: Tensor | Point) -> None:
        ends = stack_weights([w0, w1], what="the ends")
        require_apart(ends)
        super().__init__(ends, free=[False, False])
        self.buffers = stack_weight_buffers([w0, w1])

    @classmethod
    def between(cls, w0: Tensor | Point, w1: Tensor | Point, *, bends: int = 0) -> Line:
        """`Line(w0, w1)`, for the interface of the other curves; a line has no control points."""
        if checks.whole("bends", bends, least=0):
            raise ConfigError(f"bends: a line has none, got {bends}; take a Bezier or a PolyChain.")
        return cls(w0, w1)

    @property
    def breaks(self) -> tuple[float, ...]:
        return (0.0, 1.0)

    def coefficients(self, coords: Tensor) -> Tensor:  # (n, 1) -> (n, 2)
        return torch.cat([1 - coords, coords], dim=1)
