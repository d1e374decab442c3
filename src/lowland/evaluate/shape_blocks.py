"""Points of a shape as blocks of weights."""

from __future__ import annotations

import torch
from torch import Tensor

from lowland.core import LossSurface
from lowland.evaluate.weights import Block
from lowland.geometry import Shape
from lowland.geometry.base import linear_combination


class ShapeBlocks:
    """The weights and buffers at coordinates of a shape, on the surface's device."""

    def __init__(self, shape: Shape, surface: LossSurface) -> None:
        self.shape, self.surface = shape, surface
        self.has_own_buffers = False
        if shape.buffers is not None:  # those that are the surface's own need not be interpolated
            own, defaults = surface.state.matching(shape.buffers), surface.buffers
            self.has_own_buffers = not all(
                len(b) == 1 and torch.equal(b[0], defaults[name]) for name, b in own.items()
            )

    def __call__(self, z: Tensor) -> Block:  # (n, k)
        weights = linear_combination(self.shape.coefficients(z), self.shape.anchors)
        weights = weights.to(self.surface.device, self.surface.layout.dtype)
        buffers = self.shape.buffers_at(z) if self.has_own_buffers else None
        return Block(weights, None if buffers is None else self.surface.state.matching(buffers))
