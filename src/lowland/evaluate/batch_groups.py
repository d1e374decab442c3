"""Batches that are averaged together, where the average is not held for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from lowland.core import EvalOptions, LossSurface, Point
from lowland.core.data import ReplayableLoader, nbytes
from lowland.errors import ConfigError
from lowland.evaluate.planner import model_point, output_bytes
from lowland.evaluate.predictive_builder import is_per_item
from lowland.evaluate.weights import check_points

MAX_BYTES = 1 << 26  # of averages that are held at once, unless those of one batch are larger


class ReplayedPoints(Iterable[Point]):
    """Weights that are iterated over again, with the buffers of the first iteration.

    BatchNorm statistics are two numbers per channel, and estimating them again would cost a pass
    over their examples.
    """

    def __init__(
        self, surface: LossSurface, points: Iterable[Point | Tensor], options: EvalOptions
    ) -> None:
        self.surface = surface
        self.points = points
        self.options = options
        self._cache: list[tuple[float, dict[str, Tensor]]] = []  # (sum of weights, buffers)

    def __iter__(self) -> Iterator[Point]:
        for i, point in enumerate(check_points(self.points, self.surface)):
            assert isinstance(point, Point)
            weight_sum = float(point.weights.sum())
            if i == len(self._cache):
                self._cache.append((weight_sum, self.surface.buffers_for(point, self.options)))
            first_sum, buffers = self._cache[i]
            if weight_sum != first_sum:
                raise ConfigError(
                    f"weights: vector {i} is another one in each iteration; give a posterior, or a "
                    "list that does not change."
                )
            yield Point(point.weights, buffers)


def batch_groups(
    surface: LossSurface, data: ReplayableLoader, keep: str
) -> Iterator[tuple[ReplayableLoader, bool]]:
    """Groups of batches whose averages are held together, and whether each group is the last.

    Where `keep` needs values of each item alone, averages of probabilities are held for a few
    batches: at least one, and no more than 64 MiB.
    """
    if keep in ("probs", "nll") or not is_per_item(surface.task):
        yield data, True
        return
    budget, output_ratio, group_bytes = data.budget(), 0.0, 0
    group: list[Any] = []
    for batch in data:
        size = nbytes(batch)
        if not output_ratio:
            output_ratio = output_bytes(surface, batch, model_point(surface)) / max(size, 1)
        group_bytes += size
        if group and (group_bytes > budget or output_ratio * group_bytes > MAX_BYTES):
            yield data.subset(group), False
            group, group_bytes = [], size
        group.append(batch)
    yield data.subset(group), True
