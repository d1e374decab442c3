"""A mixture of posteriors: MultiSWAG, ensembles of simplexes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lowland import checks
from lowland.core.point import Point
from lowland.core.seeds import seed_for
from lowland.errors import ConfigError, LayoutError
from lowland.posteriors.base import Posterior
from lowland.posteriors.gaussian import Gaussian


class Mixture(Posterior):
    r"""\(p(w) = \sum_k \pi_k p_k(w)\), with stratified draws.

    The component of draw i is the one furthest below its share, so component k occurs \(\pi_k n\)
    times among the first n draws, up to rounding; with equal weights components take turns.
    MultiSWAG (Wilson & Izmailov 2020) is a mixture of SWAG posteriors of independent runs.

    Args:
        components: posteriors over the same weights. weights: positive numbers, normalised here;
            None: equal.

    Raises:
        ConfigError: no component, or invalid weights. LayoutError: components of different models.

    >>> from lowland.posteriors.point import PointMass
    >>> mixture = Mixture([PointMass(torch.zeros(1)), PointMass(torch.ones(1))], weights=[1, 3])
    >>> mixture.sample(4).flatten().tolist()
    [1.0, 0.0, 1.0, 1.0]
    """

    def __init__(
        self, components: Sequence[Posterior], *, weights: Sequence[float] | None = None
    ) -> None:
        if not components:
            raise ConfigError("a mixture needs at least one component.")
        for i, component in enumerate(components):
            if not isinstance(component, Posterior):
                raise ConfigError(
                    f"mixture: expected posteriors, got {type(component).__name__} for component "
                    f"{i}; for networks take ll.Ensemble, or ll.PointMass(w) for one of them."
                )
        if len({component.size for component in components}) != 1:
            sizes = ", ".join(str(component.size) for component in components)
            raise LayoutError(f"mixture: components of different models, with P = {sizes}.")
        equal = [1.0] * len(components)
        weights = checks.numbers("weights", equal if weights is None else weights, above=0)
        if len(weights) != len(components):
            raise ConfigError(
                f"weights: expected {len(components)} positive numbers, got {weights}."
            )
        self.components = list(components)
        self.weights = [w / sum(weights) for w in weights]
        self.size = components[0].size
        self.frozen = {n: v for component in components for n, v in component.frozen.items()}
        supports = {component.support for component in components}
        if len(supports) == 1 and None not in supports and len(set(weights)) == 1:
            # each component's draws in turn: all of them, once each
            self.support = len(components) * (supports.pop() or 0)
        self._order: list[tuple[int, int]] = []  # (component, number of its draw) by draw
        self._counts = [0] * len(components)

    @property
    def has_scale(self) -> bool:
        return all(component.has_scale for component in self.components)

    def with_scale(self, scale: float) -> Mixture:
        """The same mixture with this scale for every component's covariance."""
        scaled = []
        for component in self.components:
            if not isinstance(component, Gaussian | Mixture):
                raise ConfigError(f"a {type(component).__name__} has no scale; mix Gaussians.")
            scaled.append(component.with_scale(scale))
        return Mixture(scaled, weights=self.weights)

    def point(self, i: int, *, seed: int = 0) -> Point:
        while len(self._order) <= i:
            self._order.append(self._next())
        component, number = self._order[i]
        # hashed, so that components draw independently of one another, mixtures of mixtures too
        return self.components[component].point(number, seed=seed_for("mixture", seed, component))

    def _next(self) -> tuple[int, int]:
        total = len(self._order) + 1
        behind = [w * total - n for w, n in zip(self.weights, self._counts, strict=True)]
        component = behind.index(max(behind))
        self._counts[component] += 1
        return component, self._counts[component] - 1

    def log_prob(self, w: Tensor) -> Tensor:
        parts = [
            component.log_prob(w) + math.log(weight)
            for component, weight in zip(self.components, self.weights, strict=True)
        ]
        return torch.logsumexp(torch.stack(parts), 0)
