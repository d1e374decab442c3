"""Many weight vectors over examples, into sinks: the loop that every evaluation shares.

A sink takes outputs batch by batch: metrics of each weight vector (`table`), a model average
(`model_average`), a log density (`likelihood`), the points of a scan (`landscape.metrics`).
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
from lowland.evaluate.weights import Block, checked, chunks
from lowland.progress import Progress, reporting


class Sink(Protocol):
    """What becomes of outputs.

    One whose results do not depend on the order of the examples says `ordered = False`: a loader
    that is read again for each chunk may shuffle them then.
    """

    holds_examples: bool  # whether it holds something of every example for every point of a chunk

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        """Takes the outputs (n, B, ...) of a chunk of n points for batch `index`."""
        ...

    def end(self, first: int, n: int) -> None:
        """A chunk, of points first to first + n, has seen all batches."""
        ...


class Examples:
    """Examples that points are evaluated on, held in memory where they fit, and their sink.

    Attributes:
        data: the examples. resident: all batches; None where they are read again for each chunk.
    """

    def __init__(
        self, surface: LossSurface, loader: Iterable[Any] | None, sink: Sink, count: int | None
    ) -> None:
        self.surface = surface
        self.data = replayable_loader(surface, loader, count=count)
        self.resident = self.data.resident()
        self.sink = sink

    def first(self) -> Any:
        """The first batch."""
        return self.data.first() if self.resident is None else self.resident[0]

    def feed(self, outputs: Networks, first: int, n: int, *, check: bool) -> None:
        """Gives the outputs of points first to first + n for every batch to the sink.

        `check`: whether to look at the inputs and labels, as in the first pass.
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
    """Weight vectors that are evaluated in evaluation mode, each on every batch of a few loaders.

    Data are read once and held where they fit in memory; else they are read once a chunk of
    points, and must come in the same order each time. Labels are checked in the first pass. The
    weights of a chunk are made, and their BatchNorm statistics estimated, once for all loaders.

    Args:
        passes: (loader, sink) pairs; a loader of None is the surface's own.
        options: see `EvalOptions`. total: how many points there will be, where that is known.
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
        """The explicit plan of the options, or what is found to be fastest at a point."""
        batch = self.passes[0].first()
        self.surface.template.require_replayable(batch.args, batch.kwargs)
        held = [len(one.resident) for one in self.passes if one.resident is not None]
        work = Work(
            batch,
            batches=sum(held) if len(held) == len(self.passes) else None,
            points=self.total,
            held_rows=sum(
                one.data.num_examples or 0 for one in self.passes if one.sink.holds_examples
            )
            or None,
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
        """Gives the outputs of every point for every batch to the sinks.

        Args:
            points: blocks are the chunks themselves, whatever the plan says of them.
            plan: an explicit one, which is followed; None: see `plan`.
            after: called as after(first, n) when all sinks have a chunk of n points.

        Returns:
            The examples of the first loader.
        """
        stream = checked(points, self.surface)
        first = next(stream, None)
        if first is None:
            raise DataError("there is no weight vector to evaluate; give at least one.")
        plan = plan or self.plan(first[0] if isinstance(first, Block) else first)
        # no point is held longer than its chunk
        stream = chain((first,), stream)
        del first
        done = 0
        with torch.no_grad(), plan.running(), reporting(progress, label) as report:
            for group in chunks(stream, plan.chunk):
                mapped = plan.strategy == "vmap" and len(group) > 1
                outputs = networks(self.surface, group, self.options, mapped=mapped)
                for one in self.passes:
                    one.feed(outputs, done, len(group), check=done == 0)
                del outputs
                if after is not None:
                    after(done, len(group))
                done += len(group)
                del group
                report(done, self.total)
        return self.passes[0].data


def replayable_loader(
    surface: LossSurface, loader: Iterable[Any] | None, *, count: int | None
) -> ReplayableLoader:
    """The surface's examples, or a loader's; with `count=` fewer of the same."""
    known = surface.data if loader is None else loader
    if count is None or not isinstance(known, ReplayableLoader):
        return surface.replayable(loader, count=count)
    if known.count is not None and known.count <= count:
        return known
    return surface.replayable(known.loader, count=count)
