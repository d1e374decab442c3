"""Draws of a few coordinates as draws of weights: the posterior in a subspace."""

from __future__ import annotations

import torch
from torch import Tensor

from lowland.core.point import Point
from lowland.core.seeds import stream
from lowland.errors import ConfigError
from lowland.geometry import Shape
from lowland.posteriors.base import Posterior

_GOLDEN = (5**0.5 - 1) / 2


class Pushforward(Posterior):
    r"""\(w = w(z_j)\) with \(j\) drawn in proportion to weights: draws of coordinates, as weights.

    Draw i uses the j at which the cumulative weights pass \(u_i = (u_0 + i\,\phi) \bmod 1\), with
    \(\phi\) the golden ratio and \(u_0\) from the seed: any first n draws lie evenly over all
    chains, from their beginnings to their ends, and each j is as likely as its weight.

    Args:
        shape: the subspace, or any shape. coords: (n, k), one chain after the other.
        weights: (n,), nonnegative; None: equal.

    Raises:
        ConfigError: coordinates of another shape, or invalid weights.

    >>> from lowland.geometry import Line
    >>> line = Line(torch.zeros(1), torch.ones(1))
    >>> post = Pushforward(line, torch.tensor([[0.25], [0.75]]))
    >>> sorted(post.sample(4).flatten().tolist())
    [0.25, 0.25, 0.75, 0.75]
    """

    def __init__(self, shape: Shape, coords: Tensor, *, weights: Tensor | None = None) -> None:
        if coords.ndim != 2 or not len(coords) or coords.shape[1] != shape.k:
            raise ConfigError(f"coords: expected (n, {shape.k}), got {tuple(coords.shape)}.")
        if weights is None:
            weights = torch.ones(len(coords), dtype=torch.float64)
        weights = weights.double().cpu()
        fine = bool(torch.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0)
        if weights.shape != (len(coords),) or not fine:
            raise ConfigError(
                f"weights: expected ({len(coords)},) nonnegative numbers that do not sum to 0."
            )
        self.shape = shape
        self.coords = coords
        self.size = shape.size
        passed = weights.cumsum(0)
        self._passed = passed / passed[-1]  # ends in 1 exactly, and u is below it
        self._offset: tuple[int, float] | None = None

    def index(self, i: int, *, seed: int = 0) -> int:
        """Which of the coordinates is draw i."""
        if self._offset is None or self._offset[0] != seed:
            first = torch.rand((), generator=stream("pushforward", seed), dtype=torch.float64)
            self._offset = seed, float(first)
        u = (self._offset[1] + i * _GOLDEN) % 1.0
        at = torch.tensor([u], dtype=torch.float64)
        return int(torch.searchsorted(self._passed, at, right=True))

    def point(self, i: int, *, seed: int = 0) -> Point:
        z = self.coords[self.index(i, seed=seed)]
        return self.shape.point(z[None])
