"""Many weight vectors over examples, into sinks: the loop that every evaluation shares.

A sink takes outputs batch by batch: metrics of each weight vector (`table`), a model average
(`model_average`), a log density (`likelihood`), the points of a scan (`landscape.point_metrics`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor

from lowland.core import LossSurface, Point
from lowland.core.call import check_batch
from lowland.core.data import ReplayableLoader
from lowland.core.options import EvalOptions, Plan
from lowland.errors import DataError
from lowland.evaluate.networks import Networks, networks
from lowland.evaluate.planner import Work, plan
from lowland.evaluate.weights import Block, check_points, chunks
from lowland.progress import Progress, reporting


class Sink(Protocol):
    """Takes the outputs of an evaluation.

    A sink whose results do not depend on the order of the examples has `ordered = False`: a loader
    that is read again for each chunk may then shuffle them.
    """

    holds_examples: bool  # whether it holds values of every example for every point of a chunk

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        """Takes the outputs (n, B, ...) of a chunk of n points for batch `index`."""
        ...

    def end(self, first: int, n: int) -> None:
        """Ends a chunk, points first to first + n, which has seen all batches."""
        ...


class Examples:
    """The examples that points are evaluated on, held in memory where they fit, and their sink.

    Attributes:
        data: the examples.
        resident: all batches; None where they are read again for each chunk.
    """

    def __init__(
        self, surface: LossSurface, loader: Iterable[Any] | None, sink: Sink, count: int | None
    ) -> None:
        self.surface = surface
        self.data = surface.replayable(loader, count=count)
        self.resident = self.data.resident()
        self.sink = sink

    def first(self) -> Any:
        """The first batch."""
        return self.data.first() if self.resident is None else self.resident[0]

    def feed(self, outputs: Networks, first: int, n: int, *, check: bool) -> None:
        """Sends the outputs of points first to first + n for every batch to the sink.

        `check`: whether to check inputs and labels, as in the first pass.
        """
        ordered = getattr(self.sink, "ordered", True)
        batches = self.data.batches(ordered=ordered) if self.resident is None else self.resident
        for index, batch in enumerate(batches):
            args, kwargs, target = batch
            if check:
                self.surface.template.require_replayable(args, kwargs)
            output = outputs(args, kwargs)
            if check:
                check_batch(self.surface.task, (args, kwargs), output[0], target)
            self.sink.add(index, output, target)
        self.sink.end(first, n)


class Evaluation:
    """Evaluates weight vectors, in evaluation mode, on every batch of one or more loaders.

    Data are read once where they fit in memory; else once for each chunk of points, and must come
    in the same order each time. Labels are checked in the first pass. The weights of a chunk are
    made, and their BatchNorm statistics estimated, once for all loaders.

    Args:
        passes: (loader, sink) pairs; a loader of None is the surface's own.
        options: see `EvalOptions`.
        total: number of points, where it is known.
    """

    def __init__(
        self,
        surface: LossSurface,
        passes: Sequence[tuple[Iterable[Any] | None, Sink]],
        options: EvalOptions,
        *,
        total: int | None = None,
    ) -> None:
        self.surface, self.options, self.total = surface, options, total
        self.passes = [Examples(surface, loader, sink, options.count) for loader, sink in passes]

    def plan(self, point: Point) -> Plan:
        """The explicit plan of the options, or the fastest one at a point."""
        batch = self.passes[0].first()
        self.surface.template.require_replayable(batch.args, batch.kwargs)
        resident = [len(p.resident) for p in self.passes if p.resident is not None]
        counts = [p.data.num_examples or 0 for p in self.passes if p.sink.holds_examples]
        work = Work(
            batch,
            batches=sum(resident) if len(resident) == len(self.passes) else None,
            points=self.total,
            held_examples=sum(counts) or None,
        )
        return plan(self.surface, point, work, self.options)

    def run(
        self,
        points: Iterable[Point | Tensor | Block],
        *,
        plan: Plan | None = None,
        after: Callable[[int, int], None] | None = None,
        progress: Progress = False,
        label: str = "evaluate",
    ) -> ReplayableLoader:
        """Sends the outputs of every point for every batch to the sinks.

        Args:
            points: a block is a chunk, whatever the chunk size of the plan.
            plan: the plan to follow; None: that of the method `plan`.
            after: called as after(first, n) when all sinks have received a chunk of n points.

        Returns:
            The examples of the first loader.
        """
        stream = check_points(points, self.surface)
        first = next(stream, None)
        if first is None:
            raise DataError("there is no weight vector to evaluate; give at least one.")
        plan = plan or self.plan(first[0] if isinstance(first, Block) else first)
        # so that no point is held longer than its chunk
        stream = chain((first,), stream)
        del first
        done = 0
        with torch.no_grad(), plan.threads_in_use(), reporting(progress, label) as report:
            for group in chunks(stream, plan.chunk):
                vmap = plan.strategy == "vmap" and len(group) > 1
                outputs = networks(self.surface, group, self.options, vmap=vmap)
                for examples in self.passes:
                    examples.feed(outputs, done, len(group), check=done == 0)
                del outputs
                if after is not None:
                    after(done, len(group))
                done += len(group)
                del group
                report(done, self.total)
        return self.passes[0].data
