"""The contract: a posterior over weights gives its i-th draw."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from lowland import checks
from lowland.core.point import Point
from lowland.errors import LowlandError
from lowland.posteriors.noise import seed_of


class Posterior(ABC):
    """A distribution over weight vectors (P,).

    A subclass writes `point(i, seed)`; the rest follows. Draws are numbered: the i-th draw of a
    seed is always the same, alone or among others, so library code iterates over draws and never
    holds many.

    Attributes:
        size: P.
        support: how many different draws there are, where that is a number: a model average over
            them all is exact.
    """

    size: int
    support: int | None = None

    @property
    def has_scale(self) -> bool:
        """Whether there is a covariance that `with_scale` can widen or narrow."""
        return False

    @abstractmethod
    def point(self, i: int, *, seed: int = 0) -> Point:
        """The i-th draw with the buffers that belong to it, if it has any."""

    def draw(self, i: int, *, seed: int = 0) -> Tensor:
        """The i-th draw, (P,)."""
        return self.point(checks.whole("i", i, least=0), seed=checks.seed(seed)).weights

    def sample(self, n: int, *, generator: torch.Generator | None = None, seed: int = 0) -> Tensor:
        """The first n draws, (n, P), for small P; a generator replaces the seed."""
        n = checks.whole("n", n, least=1)
        seed = seed_of(generator, checks.seed(seed))
        return torch.stack([self.draw(i, seed=seed) for i in range(n)])

    def points(self, n: int, *, seed: int = 0) -> Iterator[Point]:
        """The first n draws, one by one."""
        n, seed = checks.whole("n", n, least=0), checks.seed(seed)
        return (self.point(i, seed=seed) for i in range(n))

    def log_prob(self, w: Tensor) -> Tensor:
        """The log density at w, where there is one."""
        raise LowlandError(
            f"{type(self).__name__} has no density over weight space; use a Gaussian, such as "
            "swag.posterior()."
        )
