"""The weight vectors of a call: as a posterior, as points one by one, or in blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from torch import Tensor, nn

from lowland import checks
from lowland.core import LossSurface, Point
from lowland.errors import DataError, NonFiniteError
from lowland.evaluate.batchnorm_statistics import warn_about_frozen_parameters
from lowland.posteriors import Ensemble, PointMass, Posterior
from lowland.posteriors.base import SAMPLES


def as_posterior(weights: Any) -> Posterior | None:
    """Posteriors, moments, one vector or a stack as a posterior; None for other iterables."""
    if isinstance(weights, Posterior):
        return weights
    if isinstance(weights, Point):
        return PointMass(weights)
    if isinstance(weights, Tensor):
        return PointMass(weights) if weights.ndim == 1 else Ensemble(weights)
    if hasattr(weights, "posterior"):
        posterior = weights.posterior()
        return posterior if isinstance(posterior, Posterior) else None
    return None


def iter_weights(
    surface: LossSurface, weights: Any, samples: int | None, seed: int
) -> tuple[Iterable[Point | Tensor], int | None]:
    """The weight vectors of a call, and how many, if that is known.

    Those are the members of a finite posterior, each once, or `samples` draws of another one.
    """
    if samples is not None:
        samples = checks.whole("samples", samples, least=1)
    if isinstance(weights, nn.Module):
        weights = surface.point(weights)
    posterior = as_posterior(weights)
    if posterior is not None:
        warn_about_frozen_parameters(surface, posterior)
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
    """An iterable that calls a function for each iteration.

    >>> squares = Repeatable(lambda: (i * i for i in range(3)))
    >>> list(squares), list(squares)
    ([0, 1, 4], [0, 1, 4])
    """

    def __init__(self, start: Callable[[], Iterator[Any]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[Any]:
        return self._start()


class Block(Sequence[Point]):
    """A chunk of points that are the rows of one tensor; a point is made when it is indexed.

    Args:
        weights: (n, P).
        buffers: (n, ...) by name, where the points have their own.

    >>> import torch
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

    def __iter__(self) -> Iterator[Point]:
        # by default an IndexError ends the iteration, which torch raises slowly
        return map(self.__getitem__, range(len(self)))


def check_points(
    points: Iterable[Point | Tensor | Block], surface: LossSurface, *, first: int = 0
) -> Iterator[Point | Block]:
    """Points on the device of the surface; an error names one that is not finite by its number,
    from `first` on."""
    draw = first
    for point in points:
        if isinstance(point, Block):
            yield _check_block(point, surface, draw)
            draw += len(point)
            continue
        try:
            yield surface.point(point)
        except NonFiniteError as error:
            raise NonFiniteError(f"draw {draw}: {error}") from None
        draw += 1


def _check_block(block: Block, surface: LossSurface, draw: int) -> Block:
    surface.layout.check(block.weights)
    weights = block.weights.to(surface.device)
    if not math.isfinite(weights.sum().item()):  # one read of all; then find it
        for _ in check_points(weights, surface, first=draw):
            pass
    return Block(weights, None if block.buffers is None else surface.state.matching(block.buffers))


def chunks(points: Iterator[Point | Block], size: int) -> Iterator[Sequence[Point]]:
    for point in points:
        if isinstance(point, Block):
            yield point
            continue
        group: list[Any] = [point, *islice(points, size - 1)]
        del point
        yield group
        del group  # before the next one is made
