"""All mass on one weight vector: a trained network, or an average such as SWA's."""

from __future__ import annotations

from torch import Tensor

from lowland.core.point import Point, as_point
from lowland.posteriors.base import Posterior


class PointMass(Posterior):
    """The distribution that always draws `w`.

    >>> import torch
    >>> PointMass(torch.ones(2)).sample(2)
    tensor([[1., 1.],
            [1., 1.]])
    """

    def __init__(self, w: Tensor | Point) -> None:
        self._point = as_point(w, what="point mass")
        self.size = self._point.weights.shape[-1]
        self.support = 1

    def point(self, i: int, *, seed: int = 0) -> Point:
        return self._point
