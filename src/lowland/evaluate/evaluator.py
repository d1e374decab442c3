"""Many weight vectors over a loader: the loop that every evaluation shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lowland import checks
from lowland.core import LossSurface, Point, Task
from lowland.core.call import check_batch
from lowland.core.data import Rows
from lowland.errors import DataError, NonFiniteError
from lowland.evaluate.batched import vmapped
from lowland.evaluate.planner import Plan, most_points, plan
from lowland.evaluate.statistics import warn_of_frozen
from lowland.posteriors import Ensemble, PointMass, Posterior
from lowland.posteriors.base import SAMPLES
from lowland.progress import Progress, reporting


class Block(Sequence[Point]):
    """A chunk of points that are the rows of one tensor: no work a point until one is asked for.

    Args:
        weights: (n, P). buffers: (n, ...) by name, where the points have their own.

    >>> block = Block(torch.zeros(4, 3))
    >>> len(block), block[0].weights
    (4, tensor([0., 0., 0.]))
    """

    def __init__(self, weights: Tensor, buffers: Mapping[str, Tensor] | None = None) -> None:
        self.weights = weights
        self.buffers = buffers

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, index: Any) -> Any:
        if self.buffers is None:
            return Point(self.weights[index])
        return Point(self.weights[index], {name: b[index] for name, b in self.buffers.items()})


class Sink(Protocol):
    """What becomes of outputs.

    One whose figures do not depend on the order of the rows says `ordered = False`: a loader that
    is read again for each chunk may shuffle them then.
    """

    whole: bool  # whether it holds something of every row for every point of a chunk

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        """Takes the outputs (n, B, ...) of a chunk of n points for batch `index`."""
        ...

    def end(self, first: int, n: int) -> None:
        """A chunk, of points first to first + n, has seen all batches."""
        ...


def run(
    surface: LossSurface,
    points: Iterable[Point | Tensor | Block],
    loader: Iterable[Any] | None,
    sink: Sink,
    *,
    also: Sequence[tuple[Iterable[Any] | None, Sink]] = (),
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

    Args:
        points: blocks are the chunks themselves, whatever the plan says of them.
        also: other rows, with a sink each, that the same points see: their weights are made and
            their BatchNorm statistics estimated once for all.

    Returns:
        The rows of `loader`.
    """
    passes = [_Pass(surface, rows, one, count) for rows, one in [(loader, sink), *also]]
    stream = checked(points, surface)
    first = next(stream, None)
    if first is None:
        raise DataError("there is no weight vector to evaluate; give at least one.")
    chosen = (
        strategy
        if isinstance(strategy, Plan)
        else planned(
            surface,
            [(each.data, each.resident, each.sink.whole) for each in passes],
            first[0] if isinstance(first, Block) else first,
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
            for each in passes:
                each.take(surface.task, outputs, done, len(group))
            del outputs
            done += len(group)
            del group
            report(done, total)
    return passes[0].data


class _Pass:
    """Rows that points go through, held in memory where they fit, and what becomes of outputs."""

    def __init__(
        self, surface: LossSurface, loader: Iterable[Any] | None, sink: Sink, count: int | None
    ) -> None:
        self.data = rows_for(surface, loader, count=count)
        self.resident = self.data.resident()
        self.sink = sink
        self.template = surface.template

    def take(self, task: Task, outputs: Any, first: int, n: int) -> None:
        """A chunk of n points, of which `outputs` gives the outputs, sees every batch."""
        ordered = getattr(self.sink, "ordered", True)
        batches = self.data.batches(ordered=ordered) if self.resident is None else self.resident
        for index, batch in enumerate(batches):
            args, kwargs, target = task.parts(batch)
            self.template.require_replayable(args, kwargs)
            output = outputs(args, kwargs)
            if first == 0:
                check_batch(task, (args, kwargs), output[0], target)
            self.sink.add(index, output, target)
        self.sink.end(first, n)


def rows_for(surface: LossSurface, loader: Iterable[Any] | None, *, count: int | None) -> Rows:
    """The surface's rows, or a loader's; with `count=` fewer of the same."""
    count = None if count is None else checks.whole("count", count, least=1)
    if count is not None and (loader is None or isinstance(loader, Rows)):
        known = surface.data if loader is None else loader
        count, loader = min(count, known.count or count), known.loader
    return surface.rows_of(loader, count=count)


def planned(
    surface: LossSurface,
    passes: Sequence[tuple[Rows, list[Any] | None, bool]],
    point: Point,
    *,
    total: int | None = None,
    strategy: str | None = None,
    chunk: int | None = None,
) -> Plan:
    """The plan for rows, those batches of them that are held in memory (None where they do not
    fit), and whether something of every row is held for each point: see `plan`."""
    data, resident, _ = passes[0]
    batch = data.first() if resident is None else resident[0]
    surface.template.require_replayable(batch.args, batch.kwargs)
    held = [len(batches) for _, batches, _ in passes if batches is not None]
    return plan(
        surface,
        batch,
        point,
        batches=sum(held) if len(held) == len(passes) else None,
        points=total,
        held_rows=sum(data.rows or 0 for data, _, whole in passes if whole) or None,
        strategy=strategy,
        chunk=chunk,
    )


def checked(
    points: Iterable[Point | Tensor | Block], surface: LossSurface
) -> Iterator[Point | Block]:
    """Points on the device of the surface; one that is not finite is named by its number."""
    draw = 0
    for point in points:
        if isinstance(point, Block):
            yield _checked_block(point, surface, draw)
            draw += len(point)
            continue
        try:
            yield surface.point(point)
        except NonFiniteError as error:
            raise NonFiniteError(f"draw {draw}: {error}") from None
        draw += 1


def _checked_block(block: Block, surface: LossSurface, draw: int) -> Block:
    surface.layout.check(block.weights)
    weights = block.weights.to(surface.device)
    if not math.isfinite(weights.sum().item()):  # one read of all; then which of them
        for _ in checked(weights, surface):
            pass
    return Block(weights, None if block.buffers is None else surface.own_buffers(block.buffers))


def _chunks(points: Iterator[Point | Block], size: int) -> Iterator[Sequence[Point]]:
    for point in points:
        if isinstance(point, Block):
            yield point
            continue
        group: list[Any] = [point, *islice(points, size - 1)]
        del point
        yield group
        del group  # before the next are made


def _outputs(surface: LossSurface, group: Sequence[Point], chosen: Plan, batchnorm: str) -> Any:
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
    rows = group.weights if isinstance(group, Block) else torch.stack([p.weights for p in group])
    stacked = surface.layout.materialise(rows)
    buffers = stacked_buffers(surface, group, stacked, batchnorm)

    def together(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        return vmapped(surface, stacked, buffers, args, kwargs)

    return together


def stacked_buffers(
    surface: LossSurface, group: Sequence[Point], stacked: dict[str, Tensor], batchnorm: str
) -> dict[str, Tensor]:
    """Buffers (n, ...) by name: weights that are mapped over need buffers that are."""
    own = _own_buffers(surface, group)
    by_point = surface.template.spectral or surface.statistics.names
    if not by_point and not surface.has_batchnorm:
        return own
    refreshed = [surface.refreshes(p, batchnorm) for p in group]
    if not by_point and not any(refreshed):
        return own
    if not by_point and all(refreshed):
        found = stacked_statistics(surface, stacked, own)
        if found is not None:
            return own | found
    return _stack(surface, [surface.buffers_for(p, batchnorm) for p in group])


def _own_buffers(surface: LossSurface, group: Sequence[Point]) -> dict[str, Tensor]:
    """The buffers (n, ...) that points come with."""
    if isinstance(group, Block):
        return dict(group.buffers or {})
    each = [p.buffers or {} for p in group]
    return _stack(surface, each) if any(each) else {}


def _stack(surface: LossSurface, each: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    names = dict.fromkeys(name for buffers in each for name in buffers)
    return {
        name: torch.stack([b[name] if name in b else surface.state[name] for b in each])
        for name in names
    }


def stacked_statistics(
    surface: LossSurface, stacked: dict[str, Tensor], own: dict[str, Tensor]
) -> dict[str, Tensor] | None:
    """BatchNorm statistics (n, ...) of n points at once; None where their examples do not fit."""
    joined = surface.statistics.resident()
    if joined is None:
        return None
    # as many at once as fit: these examples are often more than a batch's
    most = most_points(surface, joined)
    return torch.func.vmap(surface.statistics.from_resident, chunk_size=most)(stacked, own)


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
    surface: LossSurface, weights: Any, samples: int | None, seed: int
) -> tuple[Iterable[Point | Tensor], int | None]:
    """The weight vectors that are meant, and how many, if that is known.

    A finite support is gone through once; other posteriors are drawn from `samples` times.
    """
    if samples is not None:
        samples = checks.whole("samples", samples, least=1)
    if isinstance(weights, nn.Module):
        weights = surface.point(weights)
    posterior = as_posterior(weights)
    if posterior is not None:
        warn_of_frozen(surface, posterior)
        n = SAMPLES if samples is None else samples
        if posterior.support is not None:
            n = posterior.support if samples is None else min(samples, posterior.support)
        return Repeatable(lambda: posterior.points(n, seed=seed)), n
    if not hasattr(weights, "__iter__"):
        raise DataError(
            f"weights: expected (P,), (n, P), a posterior or an iterable of (P,), got "
            f"{type(weights).__name__}."
        )
    total = len(weights) if hasattr(weights, "__len__") else None
    if samples is None:
        return weights, total
    total = None if total is None else min(samples, total)
    if isinstance(weights, Iterator):
        return islice(weights, samples), total
    return Repeatable(lambda: islice(weights, samples)), total


class Repeatable(Iterable[Any]):
    """An iterable that a function begins anew each time.

    >>> squares = Repeatable(lambda: (i * i for i in range(3)))
    >>> list(squares), list(squares)
    ([0, 1, 4], [0, 1, 4])
    """

    def __init__(self, start: Callable[[], Iterator[Any]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[Any]:
        return self._start()
