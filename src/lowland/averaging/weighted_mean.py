"""Averages of weight vectors with weights of their own."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from lowland.core import Point
from lowland.core.buffers import BufferMean


class WeightedMean:
    r"""\(\sum_i c_i w_i / \sum_i c_i\) over points that are added one by one, summed in float64.

    Negative \(c_i\) extrapolate. Floating-point buffers are averaged with the positive ones;
    integers and booleans are those of the point with the largest, the first of equal ones.

    >>> mean = WeightedMean()
    >>> for value, weight in ((0.0, 1.0), (4.0, 3.0)):
    ...     mean.add(Point(torch.tensor([value])), weight)
    >>> mean.point.weights
    tensor([3.])
    """

    def __init__(self) -> None:
        self.total = 0.0
        self._sum: Tensor | None = None
        self._dtype = torch.float32
        self._buffers = BufferMean()
        self._positive = self._largest = 0.0

    @torch.no_grad()
    def add(self, point: Point, weight: float = 1.0) -> None:
        """Adds a point with its weight."""
        if self._sum is None:
            self._sum = torch.zeros_like(point.weights, dtype=torch.float64)
            self._dtype = point.weights.dtype
        self._sum.add_(point.weights, alpha=weight)
        self.total += weight
        if weight > 0 and point.buffers:
            self._positive += weight
            largest = weight > self._largest
            buffers = {n: b for n, b in point.buffers.items() if largest or b.is_floating_point()}
            self._buffers.update(buffers, weight / self._positive)
            self._largest = max(weight, self._largest)

    def with_point(self, point: Point, weight: float = 1.0) -> WeightedMean:
        """This mean with one more point, as another object."""
        other = WeightedMean()
        other.total, other._dtype = self.total, self._dtype
        other._sum = None if self._sum is None else self._sum.clone()
        other._positive, other._largest = self._positive, self._largest
        other._buffers.load_state_dict(self._buffers.state_dict())
        other.add(point, weight)
        return other

    @property
    def point(self) -> Point:
        """The mean with its buffers; None for these where no point had any."""
        assert self._sum is not None
        return Point((self._sum / self.total).to(self._dtype), self._buffers.values() or None)


def weighted_mean(points: Iterable[Point], weights: Tensor | Iterable[float]) -> Point:
    """The mean of points with these weights; those with weight 0 are left out.

    >>> points = [Point(torch.tensor([1.0])), Point(torch.tensor([3.0]))]
    >>> weighted_mean(points, [0.25, 0.75]).weights
    tensor([2.5000])
    """
    mean = WeightedMean()
    numbers = weights.tolist() if isinstance(weights, Tensor) else weights
    for point, weight in zip(points, numbers, strict=True):
        if weight:
            mean.add(point, weight)
    return mean.point
