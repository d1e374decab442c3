"""The fastest plan to evaluate points: each candidate is timed on one batch.

- "points": point by point, over data in memory. A convolution or a large matrix product uses the
  whole machine, and nothing is faster than the plain loop.
- "batches": batch by batch, a chunk of points on each: data that do not fit in memory are read and
  decoded once per chunk instead of once per point.
- "vmap": a chunk of points as one batched computation, for small networks, which spend their time
  in launching operations.
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
from lowland.evaluate.networks import vmap_forward

# seconds of a forward pass
SMALL = 5e-3  # above it, vmap and fewer threads cannot be faster
_LARGE = 0.1  # above it, not even where two threads slow each other down
_TINY = 1e-4

_CHUNKS = (4, 16, 64, 256)
_LOOP_CHUNK = 32  # points per chunk, where a small network evaluates them one by one
_MIN_GAIN = 0.9  # of the time one by one: vmap is taken below it
_MAX_LOSS = 1.2  # of the time one by one: above it, larger chunks of convolutions do not help
_TRIAL_FRACTION = 0.05  # of the expected work: the most that a trial of one chunk may take
_FEW_PASSES = 64  # fewer forward passes are not worth planning
_MEMORY_FRACTION = 0.1  # of the free memory: the most for the weights and outputs of a chunk


@dataclass(frozen=True)
class Work:
    """The work to plan.

    Attributes:
        batch: a batch of the data.
        batches: number of batches in memory; None where they are read again for each chunk of
            points.
        points: number of points, if known: little work is not worth planning.
        held_examples: number of examples whose outputs are held for each point; None: one batch.
        calls: how many calls with as many points will follow.
        timed: a function of (strategy, weights (n, P)) to time; None: the forward pass.
    """

    batch: Any
    batches: int | None
    points: int | None
    held_examples: int | None = None
    calls: float = 1
    timed: Callable[[str, Tensor], Any] | None = None


def plan(surface: LossSurface, point: Point, work: Work, options: EvalOptions) -> Plan:
    """The fastest candidate, timed on one batch at any weights; explicit options are kept."""
    if options.plan is not None:
        return options.plan
    strategy, chunk = options.strategy, options.chunk
    threads = options.threads or torch.get_num_threads()
    if strategy == "points":
        return Plan("points", chunk or 1, threads)
    passes = math.inf
    if work.points is not None:
        passes = work.calls * work.points * (work.batches or _FEW_PASSES)
    if strategy is None and passes < _FEW_PASSES:
        return Plan("points", 1, threads)
    outputs = output_bytes(surface, work.batch, point, work.held_examples)
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
    """The fastest plan for a number of forward passes, with at most `most` points at once."""
    chunk, threads = options.chunk, options.threads or torch.get_num_threads()
    single = Plan("points", 1, threads)
    if not work.batches:
        single = Plan("batches", chunk or most, threads)
    timed = partial(time_plan, surface=surface, point=point, work=work)
    may_use_fewer = surface.device.type == "cpu" and not options.threads
    thread_counts = {1, threads} if may_use_fewer else {threads}
    seconds = timed(Plan("points", 1, threads))
    if seconds > SMALL and (work.calls == 1 or seconds > _LARGE):
        return Plan(single.strategy, single.chunk, threads, seconds)
    # sinks take the outputs of a chunk at once, which saves much time with a small network
    best = loop = Plan("batches", chunk or min(_LOOP_CHUNK, most), threads)
    total = seconds * passes
    for count in thread_counts - {threads}:
        with_fewer = timed(Plan("points", 1, count))
        if with_fewer < seconds:
            seconds, best = with_fewer, Plan("batches", loop.chunk, count)
    # for a very small network, a few points at once cost more dispatch than they save
    sizes = (chunk,) if chunk else _CHUNKS if seconds > _TINY else _CHUNKS[1:]
    for size in sorted({min(size, most) for size in sizes}):
        # a trial must be short beside the work; where small chunks are slow, larger ones are, too
        trials = 1 if seconds <= _TINY else 3 * len(thread_counts)  # a trial takes a few ms
        if size == 1 or trials * size * seconds > _TRIAL_FRACTION * total:
            break
        candidates = [Plan("vmap", size, count) for count in thread_counts]
        times = [timed(candidate, limit=2 * seconds) for candidate in candidates]
        least = min(times)
        if work.calls == 1 and least > (_MAX_LOSS if seconds > _TINY else 2) * seconds:
            break
        # a trial is noisy: vmap must be clearly faster than one by one
        if least < (1 if best.strategy == "vmap" else _MIN_GAIN) * seconds:
            seconds, best = least, candidates[times.index(least)]
    return Plan(best.strategy, best.chunk, best.threads, seconds)


def time_plan(
    candidate: Plan,
    surface: LossSurface,
    point: Point,
    work: Work,
    *,
    limit: float = math.inf,
) -> float:
    """Seconds per point for one batch, the least of a few trials; infinite where it cannot run.

    `limit`: seconds per point; a first trial of more than twice as long is the only one.
    """
    timed = work.timed or partial(_forward, surface, work.batch)
    repeats = 2 if work.calls == 1 else 20  # more for a plan of thousands of calls
    chunk = candidate.chunk if candidate.strategy == "vmap" else 1
    best = float("inf")
    # for one thread, CPU time, which does not depend on other processes
    on_one_cpu = candidate.threads == 1 and surface.device.type == "cpu"
    clock = time.thread_time if on_one_cpu else time.perf_counter
    with torch.no_grad(), candidate.threads_in_use(), warnings.catch_warnings():
        # where an operation has no batching rule, torch loops over it, slowly, and warns
        warnings.filterwarnings("error", ".*batching rule")
        try:
            stacked = point.weights.expand(chunk, -1).contiguous()
            for trial in range(repeats + 1):  # the first warms up
                start = clock()
                timed(candidate.strategy, stacked)
                if surface.device.type == "cuda":
                    torch.cuda.synchronize(surface.device)
                best = min(best, (clock() - start) / chunk)
                # further trials of a slow candidate would take too long
                if best > min(4 * SMALL, 2 * limit) or (trial and best > SMALL):
                    break
        except (ConfigError, RuntimeError, UserWarning):  # a model that cannot be mapped over
            return float("inf")
    return best


def _forward(surface: LossSurface, batch: Any, strategy: str, weights: Tensor) -> Tensor:
    args, kwargs, _ = surface.task.parts(batch)
    if strategy == "vmap":
        return vmap_forward(surface, surface.layout.materialise(weights), {}, args, kwargs)
    return surface.forward(surface.layout.materialise(weights[0]), {}, args, kwargs)


def most_points(surface: LossSurface, batch: Any, output_bytes: int = 0) -> int:
    """The number of points whose weights, activations and outputs for one batch fit in memory."""
    # the activations of a small network are about as large as a few of its inputs; outputs are
    # held with their probabilities and log probabilities
    point_bytes = 8 * surface.layout.size + 32 * nbytes(batch) + 4 * output_bytes
    return max(1, int(_MEMORY_FRACTION * free_memory(surface.device) / max(point_bytes, 1)))


def output_bytes(
    surface: LossSurface, batch: Any, point: Point, examples: int | None = None
) -> int:
    """Bytes of the outputs for so many examples; None: those of the batch. One is evaluated."""
    sample = first_examples(batch, 1) if is_sliceable(batch) else batch
    args, kwargs, _ = surface.task.parts(sample)
    with torch.no_grad():
        output = surface.forward(surface.layout.materialise(point.weights), {}, args, kwargs)
    examples = count_examples(batch) if examples is None else examples
    return output.nbytes * examples // count_examples(sample)


def model_point(surface: LossSurface) -> Point:
    """The weights of the surface's model."""
    return Point(surface.layout.flatten(surface.template.module))
