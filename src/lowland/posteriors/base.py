"""The contract: a posterior over weights gives its i-th draw."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from lowland import checks
from lowland.core.point import Point
from lowland.errors import LowlandError
from lowland.posteriors.noise import seed_of

if TYPE_CHECKING:
    from lowland.core.surface import LossSurface
    from lowland.posteriors.ensemble import Ensemble

SAMPLES = 30  # draws that a model average takes where nothing else is said


class Posterior(ABC):
    """A distribution over weight vectors (P,).

    A subclass writes `point(i, seed)`; the rest follows. Draws are numbered: the i-th draw of a
    seed is always the same, alone or among others, so library code iterates over draws and never
    holds many.

    Attributes:
        size: P.
        support: the number of different draws, if finite: a model average over all of them is
            exact.
    """

    size: int
    support: int | None = None
    frozen: Mapping[str, list[float]] = MappingProxyType({})

    def remember(self, frozen: Mapping[str, list[float]]) -> Self:
        """This posterior, with a few values of each parameter outside the weights: a surface whose
        model has other values warns."""
        self.frozen = frozen
        return self

    @property
    def has_scale(self) -> bool:
        """Whether `with_scale` can change the scale of a covariance."""
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

    def freeze(
        self, surface: LossSurface, *, samples: int | None = None, seed: int = 0
    ) -> Ensemble:
        """The first `samples` draws, each with the statistics that belong to it, as an ensemble.

        Statistics, such as BatchNorm's, are estimated from the surface's examples now, once per
        draw, and fixed from then on. `Ensemble.save` writes all that a server without training
        examples needs, and a prediction takes one forward pass per draw. Memory: samples x P. None:
        30 draws, or every member where there are finitely many.

        >>> from lowland import Classification, LossSurface, PointMass, predict
        >>> net = torch.nn.Sequential(torch.nn.BatchNorm1d(1), torch.nn.Linear(1, 2))
        >>> train = [(torch.randn(50, 1), torch.zeros(50, dtype=torch.long))]
        >>> surface = LossSurface(net, Classification(), train)
        >>> frozen = PointMass(surface.layout.flatten(net)).freeze(surface)
        >>> server = LossSurface(net, Classification())  # no examples: the members have statistics
        >>> predict(server, frozen, [torch.ones(1, 1)]).probs.shape
        torch.Size([1, 2])
        """
        from lowland.posteriors.ensemble import Ensemble

        n = self.support or SAMPLES
        if samples is not None:
            samples = checks.whole("samples", samples, least=1)
            n = min(samples, self.support or samples)
        members = [surface.estimated(point) for point in self.points(n, seed=seed)]
        ensemble = Ensemble(members, layout=surface.layout)
        ensemble.frozen = self.frozen
        return ensemble

    def log_prob(self, w: Tensor) -> Tensor:
        """The log density at w, where there is one."""
        raise LowlandError(
            f"{type(self).__name__} has no density over weight space; use a Gaussian, such as "
            "swag.posterior()."
        )


def draw_count(posterior: Posterior, samples: int) -> int | None:
    """How many draws a model average takes: `samples`; None, for all, where they are finite.

    >>> from lowland.posteriors import PointMass
    >>> draw_count(PointMass(torch.zeros(2)), 30)
    """
    return samples if posterior.support is None else None
