"""Many weight vectors over a loader: the loop that every evaluation shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, Protocol

import torch
from torch import Tensor

from lowland.core import LossSurface, Point
from lowland.core.data import Rows
from lowland.errors import DataError, NonFiniteError
from lowland.evaluate.planner import Plan, most_points, plan, vmapped
from lowland.posteriors import Ensemble, PointMass, Posterior
from lowland.progress import Progress, reporting

DEFAULT_SAMPLES = 30


class Sink(Protocol):
    """What becomes of outputs."""

    whole: bool  # whether it holds something of every row for every point of a chunk

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        """Takes the outputs (n, B, ...) of a chunk of n points for batch `index`."""
        ...

    def end(self, first: int, n: int) -> None:
        """A chunk, of points first to first + n, has seen all batches."""
        ...


def run(
    surface: LossSurface,
    points: Iterable[Point | Tensor],
    loader: Iterable[Any] | None,
    sink: Sink,
    *,
    total: int | None = None,
    batchnorm: str = "refresh",
    strategy: str | Plan | None = None,
    chunk: int | None = None,
    count: int | None = None,
    progress: Progress = False,
    label: str = "evaluate",
) -> Rows:
    """Evaluates every point on every batch, in evaluation mode, and hands the outputs to `sink`.

    Data are read once and held where they fit in memory; else they are read once a chunk of
    points, and must come in the same order each time. Labels are checked at the first pass. A
    `Plan` in place of a strategy is followed as it is: see `planned`.
    """
    data = rows_for(surface, loader, count=count)
    resident = data.resident()
    stream = _checked(points, surface)
    first = next(stream, None)
    if first is None:
        raise DataError("there is no weight vector to evaluate; give at least one.")
    chosen = (
        strategy
        if isinstance(strategy, Plan)
        else planned(
            surface,
            data,
            resident,
            first,
            whole=sink.whole,
            total=total,
            strategy=strategy,
            chunk=chunk,
        )
    )
    # no point is held longer than its chunk
    stream = chain((first,), stream)
    del first
    done = 0
    with torch.no_grad(), chosen.running(), reporting(progress, label) as report:
        for group in _chunks(stream, chosen.chunk):
            outputs = _outputs(surface, group, chosen, batchnorm)
            batches = data.batches(ordered=True) if resident is None else resident
            for index, batch in enumerate(batches):
                args, kwargs, target = surface.task.parts(batch)
                output = outputs(args, kwargs)
                if done == 0 and target is not None:
                    surface.task.check(output[0], target)
                sink.add(index, output, target)
            del outputs, output
            sink.end(done, len(group))
            done += len(group)
            del group
            report(done, total)
    return data


def rows_for(surface: LossSurface, loader: Iterable[Any] | None, *, count: int | None) -> Rows:
    """The surface's rows, or a loader's; with `count=` fewer of the same."""
    if count is not None and (loader is None or isinstance(loader, Rows)):
        loader = (surface.data if loader is None else loader).loader
    return surface.rows_of(loader, count=count)


def planned(
    surface: LossSurface,
    data: Rows,
    resident: list[Any] | None,
    point: Point,
    *,
    whole: bool,
    total: int | None = None,
    strategy: str | None = None,
    chunk: int | None = None,
) -> Plan:
    """The plan for these rows, `resident` where they fit in memory: see `plan`."""
    batch = resident[0] if resident is not None else data.first()
    return plan(
        surface,
        batch,
        point,
        batches=None if resident is None else len(resident),
        points=total,
        held_rows=data.rows if whole else None,
        strategy=strategy,
        chunk=chunk,
    )


def _checked(points: Iterable[Point | Tensor], surface: LossSurface) -> Iterator[Point]:
    for draw, point in enumerate(points):
        try:
            yield surface.point(point)
        except NonFiniteError as error:
            raise NonFiniteError(f"draw {draw}: {error}") from None


def _chunks(points: Iterator[Point], size: int) -> Iterator[list[Point]]:
    while group := list(islice(points, size)):
        yield group
        del group  # before the next are made


def _outputs(surface: LossSurface, group: list[Point], chosen: Plan, batchnorm: str) -> Any:
    """A function (args, kwargs) -> outputs (n, B, ...) for a chunk of points."""
    if chosen.strategy != "vmap" or len(group) == 1:
        made = [
            (surface.layout.materialise(p.weights), surface.buffers_for(p, batchnorm))
            for p in group
        ]

        def one_by_one(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
            parts = [surface.forward(w, buffers, args, kwargs) for w, buffers in made]
            return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)

        return one_by_one
    stacked = surface.layout.materialise(torch.stack([p.weights for p in group]))
    buffers = _stacked_buffers(surface, group, stacked, batchnorm)

    def together(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        return vmapped(surface, stacked, buffers, args, kwargs)

    return together


def _stacked_buffers(
    surface: LossSurface, group: list[Point], stacked: dict[str, Tensor], batchnorm: str
) -> dict[str, Tensor]:
    """Buffers (n, ...) by name: weights that are mapped over need buffers that are."""
    if not surface.has_batchnorm and not any(p.buffers for p in group):
        return {}
    if batchnorm == "refresh" and surface.has_batchnorm and not any(p.buffers for p in group):
        joined = surface.statistics.resident()
        if joined is not None:  # as many at once as fit: these rows are often more than a batch's
            return torch.func.vmap(
                surface.statistics.from_resident, chunk_size=most_points(surface, joined)
            )(stacked)
    each = [surface.buffers_for(p, batchnorm) for p in group]
    names = dict.fromkeys(name for buffers in each for name in buffers)
    return {
        name: torch.stack([b[name] if name in b else surface.buffers[name] for b in each])
        for name in names
    }


def as_posterior(weights: Any) -> Posterior | None:
    """Posteriors, moments, one vector or a stack as a posterior; None for other iterables."""
    if isinstance(weights, Posterior):
        return weights
    if isinstance(weights, Point):
        return PointMass(weights)
    if isinstance(weights, Tensor):
        return PointMass(weights) if weights.ndim == 1 else Ensemble(weights)
    if hasattr(weights, "posterior"):
        made = weights.posterior()
        return made if isinstance(made, Posterior) else None
    return None


def points_of(
    weights: Any, samples: int | None, seed: int
) -> tuple[Iterable[Point | Tensor], int | None]:
    """The weight vectors that are meant, and how many, if that is known.

    A finite support is gone through once; other posteriors are drawn from `samples` times.
    """
    posterior = as_posterior(weights)
    if posterior is not None:
        if samples is not None and samples < 1:
            raise DataError(f"samples: expected at least 1, got {samples}.")
        n = DEFAULT_SAMPLES if samples is None else samples
        if posterior.support is not None:
            n = posterior.support if samples is None else min(samples, posterior.support)
        return posterior.points(n, seed=seed), n
    if not hasattr(weights, "__iter__"):
        raise DataError(
            f"weights: expected (P,), (n, P), a posterior or an iterable of (P,), got "
            f"{type(weights).__name__}."
        )
    total = len(weights) if hasattr(weights, "__len__") else None
    if samples is None:
        return weights, total
    return islice(weights, samples), None if total is None else min(samples, total)
