"""Figures at coordinates of a shape: what scans of planes, lines, curves and triangles share."""

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
from lowland.landscape.figures import Figures, Row
from lowland.landscape.ledger import Ledger
from lowland.progress import Progress, reporting

_BLOCK = 1 << 20  # weights that are made at once where points go together, one by one, in chunks

Measure = Callable[[list[int]], None]  # evaluates points by their numbers


class PointScan:
    """A row of figures at each of many coordinates, chunk by chunk, with a file of what is known.

    Weights are made from the shape's anchors as they are needed, and never held for all points.

    Args:
        coords: (n, k). passes: examples, each with the sink that makes a row of each point.
        row: of (a point's rows, one a pass; a function that gives its weights again), makes the
            row of figures that is kept.
        begin: is called with the plan before points are evaluated.
        blocks: whether weights of small networks are made for a chunk of coordinates at once,
            which may round the last bit of a weight otherwise than one at a time.

    Attributes:
        rows: the rows of figures by the numbers of their points.
    """

    def __init__(
        self,
        shape: Shape,
        surface: LossSurface,
        coords: Tensor,
        passes: Sequence[tuple[ReplayableLoader, Figures]],
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
        """How points are evaluated, unless a file says it."""
        return self.evaluation.plan(self.surface.point(self.shape.point(self.coords[:1])))

    def evaluate(
        self, points: Sequence[int], plan: Plan, take: Callable[[Sequence[int], list[Row]], None]
    ) -> None:
        """Evaluates points by their numbers; take(numbers, rows) is called after each chunk."""
        at = self.coords[list(points)]
        self.begin(plan)

        def after(first: int, n: int) -> None:
            each = zip(*(sink.rows for sink in self.sinks), strict=True)
            again = (partial(self.shape.point, at[i : i + 1]) for i in range(first, first + n))
            rows = [self.row(parts, one) for parts, one in zip(each, again, strict=True)]
            take(points[first : first + n], rows)

        self.evaluation.run(self._weights(at, plan), plan=plan, after=after)

    def run(
        self,
        ledger: Ledger,
        plan: Plan,
        *,
        steps: Callable[[Measure], None] | None = None,
        progress: Progress = False,
        label: str,
    ) -> None:
        """Finds the rows of all points; with `steps` of those alone that it measures.

        Args:
            ledger: what a file holds is taken from there, and what is new is written to it.
            steps: is called with a function that measures points by their numbers.
        """
        ledger.start(plan)
        most = len(self.coords)
        with reporting(progress, label) as report:

            def take(points: Sequence[int], rows: list[Row]) -> None:
                self.rows.update(zip(points, rows, strict=True))
                ledger.write(points, rows)
                report(len(self.rows), most)

            def measure(points: list[int]) -> None:
                rows = ledger.replay(points)
                self.rows.update(zip(points, rows, strict=False))
                report(len(self.rows), most)
                if rest := points[len(rows) :]:
                    self.evaluate(rest, plan, take)

            try:
                if steps is None:
                    measure(list(range(most)))
                else:
                    steps(measure)
                    report(len(self.rows), len(self.rows))
            finally:
                ledger.close()

    def _weights(self, coords: Tensor, plan: Plan) -> Iterator[Point | Block]:
        """The points at coordinates, one by one: of small networks a chunk at a time."""
        small = plan.strategy == "vmap" or plan.chunk * self.shape.size <= _BLOCK
        if not (small and self.blocks):
            yield from (self.shape.point(row) for row in coords.split(1))
            return
        for block in coords.split(plan.chunk):
            yield Block(self.shape(block), self.shape.buffers_at(block))
