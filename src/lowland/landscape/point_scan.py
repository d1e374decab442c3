"""Metrics at coordinates of a shape, for scans of planes, lines, curves and triangles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from torch import Tensor

from lowland.core import EvalOptions, LossSurface, Point
from lowland.core.data import ReplayableLoader
from lowland.core.options import Plan
from lowland.evaluate.engine import Evaluation
from lowland.evaluate.weights import Block
from lowland.geometry import Shape
from lowland.landscape.journal import Journal
from lowland.landscape.point_metrics import MetricSink, Row
from lowland.progress import Progress, reporting

_BLOCK = 1 << 20  # weights that may be computed at once

Measure = Callable[[list[int]], None]  # evaluates points by their indices


class PointScan:
    """A row of metrics at each of many coordinates, chunk by chunk, with a file for continuing.

    Weights are computed from the shape's anchors as they are needed, never for all points.

    Args:
        coords: (n, k). passes: examples, each with the sink that computes a row for each point.
        row: takes a point's rows, one a pass, and a function that returns its weights; returns the
            row of metrics of the point.
        begin: called with the plan before points are evaluated.
        blocks: compute the weights of small networks for a chunk of coordinates at once, which may
            round their last bit differently.

    Attributes:
        rows: the rows of metrics by the indices of their points.
    """

    def __init__(
        self,
        shape: Shape,
        surface: LossSurface,
        coords: Tensor,
        passes: Sequence[tuple[ReplayableLoader, MetricSink]],
        options: EvalOptions,
        *,
        row: Callable[[Sequence[Row], Callable[[], Point]], Row],
        begin: Callable[[Plan], None] = lambda plan: None,
        blocks: bool = True,
    ) -> None:
        self.shape, self.surface, self.coords = shape, surface, coords
        self.row, self.begin, self.blocks = row, begin, blocks
        self.sinks = [sink for _, sink in passes]
        self.evaluation = Evaluation(surface, passes, options, total=len(coords))
        self.rows: dict[int, Row] = {}

    def plan(self) -> Plan:
        """How points are evaluated, unless a file has a plan."""
        return self.evaluation.plan(self.surface.point(self.shape.point(self.coords[:1])))

    def evaluate(
        self, points: Sequence[int], plan: Plan, take: Callable[[Sequence[int], list[Row]], None]
    ) -> None:
        """Evaluates points by their indices; calls take(indices, rows) after each chunk."""
        coords = self.coords[list(points)]
        self.begin(plan)

        def after(first: int, n: int) -> None:
            each = zip(*(sink.rows for sink in self.sinks), strict=True)
            rows = [
                self.row(parts, partial(self._point, coords, i))
                for i, parts in enumerate(each, start=first)
            ]
            take(points[first : first + n], rows)

        self.evaluation.run(self._weights(coords, plan), plan=plan, after=after)

    def _point(self, coords: Tensor, i: int) -> Point:
        return self.shape.point(coords[i : i + 1])

    def run(
        self,
        journal: Journal,
        plan: Plan,
        *,
        steps: Callable[[Measure], None] | None = None,
        progress: Progress = False,
        label: str,
    ) -> None:
        """Computes the rows of all points, or of those that `steps` measures.

        Args:
            journal: rows in its file are read, new rows are appended to it.
            steps: called with a function that measures points by their indices.
        """
        journal.start(plan)
        most = len(self.coords)
        with reporting(progress, label) as report:

            def take(points: Sequence[int], rows: list[Row]) -> None:
                self.rows.update(zip(points, rows, strict=True))
                journal.write(points, rows)
                report(len(self.rows), most)

            def measure(points: list[int]) -> None:
                rows = journal.replay(points)
                self.rows.update(zip(points, rows, strict=False))
                report(len(self.rows), most)
                if remaining := points[len(rows) :]:
                    self.evaluate(remaining, plan, take)

            try:
                if steps is None:
                    measure(list(range(most)))
                else:
                    steps(measure)
                    report(len(self.rows), len(self.rows))
            finally:
                journal.close()

    def _weights(self, coords: Tensor, plan: Plan) -> Iterator[Point | Block]:
        """The points at coordinates, one by one, or by chunks for small networks."""
        small = plan.strategy == "vmap" or plan.chunk * self.shape.size <= _BLOCK
        if not (small and self.blocks):
            yield from (self.shape.point(row) for row in coords.split(1))
            return
        for block in coords.split(plan.chunk):
            yield Block(self.shape(block), self.shape.buffers_at(block))
