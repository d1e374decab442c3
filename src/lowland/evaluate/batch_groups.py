"""Batches that are averaged together, where an average is not held for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from lowland.core import EvalOptions, LossSurface, Point
from lowland.core.data import ReplayableLoader, nbytes
from lowland.errors import ConfigError
from lowland.evaluate.planner import output_bytes, own_point
from lowland.evaluate.predictive_builder import by_items
from lowland.evaluate.weights import checked

MOST = 1 << 26  # bytes of averages that are held at once, if those of a batch are not more


class Replay(Iterable[Point]):
    """Weights that are gone through again, with the buffers that were found for them at first.

    Of BatchNorm that is two numbers a channel, where estimating them again would cost a pass over
    the rows that they are from.
    """

    def __init__(
        self, surface: LossSurface, points: Iterable[Point | Tensor], options: EvalOptions
    ) -> None:
        self.surface = surface
        self.points = points
        self.options = options
        self._seen: list[tuple[float, dict[str, Tensor]]] = []

    def __iter__(self) -> Iterator[Point]:
        for i, point in enumerate(checked(self.points, self.surface)):
            assert isinstance(point, Point)
            mark = float(point.weights.sum())
            if i == len(self._seen):
                self._seen.append((mark, self.surface.buffers_for(point, self.options)))
            before, buffers = self._seen[i]
            if mark != before:
                raise ConfigError(
                    f"weights: vector {i} is another one each time; give a posterior, or a list "
                    "that stays as it is."
                )
            yield Point(point.weights, buffers)


def groups(
    surface: LossSurface, rows: ReplayableLoader, keep: str
) -> Iterator[tuple[ReplayableLoader, bool]]:
    """Rows in the parts whose averages are held together, and whether each is the last.

    Where nothing is kept of them but what each item gives, averages of probabilities are held for
    few batches: of one at least, and of no more than 64 MiB.
    """
    if keep in ("probs", "nll") or not by_items(surface.task):
        yield rows, True
        return
    fits, share, held = rows.budget(), 0.0, 0
    group: list[Any] = []
    for batch in rows:
        share = share or output_bytes(surface, batch, own_point(surface)) / max(nbytes(batch), 1)
        held += nbytes(batch)
        if group and (held > fits or share * held > MOST):
            yield rows.subset(group), False
            group, held = [], nbytes(batch)
        group.append(batch)
    yield rows.subset(group), True
