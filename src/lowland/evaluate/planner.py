"""How many points are evaluated fastest: timed on one batch, not guessed.

- "points": point by point, over data in memory. A convolution or a large matrix product fills the
  machine by itself; nothing beats the plain loop.
- "batches": batch by batch, a chunk of points at each: data that do not fit in memory are read and
  decoded once a chunk instead of once a point.
- "vmap": a chunk of points as one batched computation: for small networks, whose loop spends its
  time in launching operations.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lowland.core import LossSurface, Point
from lowland.core.data import first_examples, free_memory, is_sliceable, nbytes
from lowland.core.options import EvalOptions, Plan
from lowland.core.task import count_examples
from lowland.errors import ConfigError
from lowland.evaluate.batched import vmapped

SMALL = 5e-3  # seconds of a forward pass above which vmap and fewer threads cannot win
_LARGE = 0.1  # above which they cannot even if two threads get into each other's way
_TINY = 1e-4
_CHUNKS = (4, 16, 64, 256)
_LOOP = 32  # points a chunk, where a small network goes through them one by one
_CLEAR = 0.9  # of the time one by one: what vmap must be below
_HOPELESS = 1.2  # times slower than one by one: larger chunks of convolutions do not mend that
_TRIAL = 0.05  # of the work that is expected: what a trial of one chunk may take
_FEW = 64  # forward passes, less than which planning would take longer than it could save
_SHARE = 0.1  # of the free memory: what the weights and outputs of a chunk may take


@dataclass(frozen=True)
class Work:
    """What is to be done, as far as a plan depends on it.

    Attributes:
        batch: a batch of the data. batches: how many are held in memory; None where they are read
            again for each chunk of points.
        points: how many there will be, if known: little work is not worth planning for.
        held_rows: of how many examples outputs are held for each point; None: a batch's.
        calls: how many times as many points will come.
        timed: of (strategy, weights (n, P)), what is timed; None: the forward passes alone.
    """

    batch: Any
    batches: int | None
    points: int | None
    held_rows: int | None = None
    calls: float = 1
    timed: Callable[[str, Tensor], Any] | None = None


def plan(surface: LossSurface, point: Point, work: Work, options: EvalOptions) -> Plan:
    """Times what applies on one batch, at any weights, and takes the fastest; what the options say
    stays."""
    if options.plan is not None:
        return options.plan
    strategy, chunk = options.strategy, options.chunk
    threads = options.threads or torch.get_num_threads()
    if strategy == "points":
        return Plan("points", chunk or 1, threads)
    passes = math.inf
    if work.points is not None:
        passes = work.calls * work.points * (work.batches or _FEW)
    if strategy is None and passes < _FEW:
        return Plan("points", 1, threads)
    outputs = output_bytes(surface, work.batch, point, work.held_rows)
    most = min(most_points(surface, work.batch, outputs), work.points or 256)
    if strategy is not None:
        return Plan(strategy, chunk or most, threads)
    return _fastest(surface, point, work, options, most=most, passes=passes)


def _fastest(
    surface: LossSurface,
    point: Point,
    work: Work,
    options: EvalOptions,
    *,
    most: int,
    passes: float,
) -> Plan:
    """The fastest of the plans that apply to so many forward passes, with at most `most` points at
    once."""
    chunk, threads = options.chunk, options.threads or torch.get_num_threads()
    single = Plan("points", 1, threads)
    if not work.batches:
        single = Plan("batches", chunk or most, threads)
    timed = partial(time_plan, surface=surface, point=point, work=work)
    alone = {1, threads} if surface.device.type == "cpu" and not options.threads else {threads}
    seconds = timed(Plan("points", 1, threads))
    if seconds > SMALL and (work.calls == 1 or seconds > _LARGE):
        return Plan(single.strategy, single.chunk, threads, seconds)
    # what becomes of the outputs is worked out for a chunk of points at once: of a small network
    # that is a large part
    best = loop = Plan("batches", chunk or min(_LOOP, most), threads)
    total = seconds * passes
    for count in alone - {threads}:
        fewer = timed(Plan("points", 1, count))
        if fewer < seconds:
            seconds, best = fewer, Plan("batches", loop.chunk, count)
    # a few points at once do not pay for the dispatch of a very small network, and many do
    sizes = (chunk,) if chunk else _CHUNKS if seconds > _TINY else _CHUNKS[1:]
    for size in sorted({min(size, most) for size in sizes}):
        # a trial must stay small beside the work, and larger chunks rarely mend a bad start
        trials = 1 if seconds <= _TINY else 3 * len(alone)  # a trial of a few ms is soon over
        if size == 1 or trials * size * seconds > _TRIAL * total:
            break
        tried = [Plan("vmap", size, count) for count in alone]
        found = [timed(p, limit=2 * seconds) for p in tried]
        least = min(found)
        if work.calls == 1 and least > (_HOPELESS if seconds > _TINY else 2) * seconds:
            break
        # what is hardly faster than one by one is not: a trial is as noisy as that
        if least < (1 if best.strategy == "vmap" else _CLEAR) * seconds:
            seconds, best = least, tried[found.index(least)]
    return Plan(best.strategy, best.chunk, best.threads, seconds)


def time_plan(
    candidate: Plan,
    surface: LossSurface,
    point: Point,
    work: Work,
    *,
    limit: float = math.inf,
) -> float:
    """Seconds a point for one batch, the best of a few; infinite where it cannot run.

    `limit`: seconds a point, over twice which even the first pass says enough.
    """
    timed = work.timed or partial(_forward, surface, work.batch)
    repeats = 2 if work.calls == 1 else 20  # a choice for thousands of calls may take a few
    chunk = candidate.chunk if candidate.strategy == "vmap" else 1
    best = float("inf")
    # of one thread the time at work, whoever else works on the machine
    alone = candidate.threads == 1 and surface.device.type == "cpu"
    clock = time.thread_time if alone else time.perf_counter
    with torch.no_grad(), candidate.running(), warnings.catch_warnings():
        # where an operation has no batching rule, torch loops over it, slowly, and warns
        warnings.filterwarnings("error", ".*batching rule")
        try:
            stacked = point.weights.expand(chunk, -1).contiguous()
            for turn in range(repeats + 1):  # the first warms up
                start = clock()
                timed(candidate.strategy, stacked)
                if surface.device.type == "cuda":
                    torch.cuda.synchronize(surface.device)
                best = min(best, (clock() - start) / chunk)
                # clear at once, or once it is warm: every further pass would be felt
                if best > min(4 * SMALL, 2 * limit) or (turn and best > SMALL):
                    break
        except (ConfigError, RuntimeError, UserWarning):  # what cannot be mapped over
            return float("inf")
    return best


def _forward(surface: LossSurface, batch: Any, strategy: str, weights: Tensor) -> Tensor:
    args, kwargs, _ = surface.task.parts(batch)
    if strategy == "vmap":
        return vmapped(surface, surface.layout.materialise(weights), {}, args, kwargs)
    return surface.forward(surface.layout.materialise(weights[0]), {}, args, kwargs)


def most_points(surface: LossSurface, batch: Any, output_bytes: int = 0) -> int:
    """How many points' weights, activations and outputs for one batch fit."""
    # the activations of a small network are about as large as a few of its inputs; outputs are
    # held with their probabilities and the logarithms of these
    each = 8 * surface.layout.size + 32 * nbytes(batch) + 4 * output_bytes
    return max(1, int(_SHARE * free_memory(surface.device) / max(each, 1)))


def output_bytes(surface: LossSurface, batch: Any, point: Point, held: int | None = None) -> int:
    """Of one row of the batch, times the rows that are held; None: those of the batch."""
    one = first_examples(batch, 1) if is_sliceable(batch) else batch
    args, kwargs, _ = surface.task.parts(one)
    with torch.no_grad():
        output = surface.forward(surface.layout.materialise(point.weights), {}, args, kwargs)
    return output.nbytes * (count_examples(batch) if held is None else held) // count_examples(one)


def own_point(surface: LossSurface) -> Point:
    """The weights of the model as it came."""
    return Point(surface.layout.flatten(surface.template.module))
