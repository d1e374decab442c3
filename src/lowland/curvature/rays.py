"""Directions from a weight vector, made one at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from lowland import checks
from lowland.core import LossSurface
from lowland.core.inner import inner
from lowland.errors import ConfigError
from lowland.geometry import Subspace
from lowland.geometry.affine import Affine
from lowland.landscape.directions import iter_directions
from lowland.records import SpectrumResult
from lowland.trajectory import SWAG

_COMPONENTS = 5  # principal components of SWAG, at most


class Rays(ABC):
    """Directions by number.

    Attributes:
        name: what they are, for the record.
    """

    name: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def direction(self, i: int, w: Tensor) -> Tensor:
        """Direction i from w, (P,)."""


class RandomRays(Rays):
    """n Gaussian directions, normalised to the weights as in `directions`, or of length 1."""

    def __init__(self, surface: LossSurface, n: int, *, normalise: str | None, seed: int) -> None:
        self.surface, self.n, self.normalise, self.seed = surface, n, normalise, seed
        self.name = "plain" if normalise is None else f"{normalise}-normalised"

    def __len__(self) -> int:
        return self.n

    def direction(self, i: int, w: Tensor) -> Tensor:
        (vector,) = iter_directions(self.surface, w, [i], seed=self.seed, normalise=self.normalise)
        if self.normalise is None:
            vector = vector / float(inner(vector, vector).sqrt())
        return vector

    def first(self) -> RandomRays:
        """The first one alone."""
        return RandomRays(self.surface, 1, normalise=self.normalise, seed=self.seed)


class FixedRays(Rays):
    """The rows of a matrix (n, P), such as eigenvectors."""

    name = "given"

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def direction(self, i: int, w: Tensor) -> Tensor:
        return self.rows[i].to(w)


def rays_of(directions: Any, surface: LossSurface, *, normalise: str | None, seed: int) -> Rays:
    """Random rays for a number, else those of a tensor, a subspace, SWAG or a spectrum.

    Raises:
        ConfigError: anything else. LayoutError: directions of another model. NonFiniteError: NaN
            or infinity in them.
    """
    if isinstance(directions, int | float) or getattr(directions, "ndim", None) == 0:
        n = checks.whole("directions", directions, least=1)
        return RandomRays(surface, n, normalise=normalise, seed=seed)
    rows = _rows(directions)
    surface.layout.check(rows)
    for row in rows:
        surface.layout.require_finite(row, what="the directions")
    return FixedRays(rows.detach())


def _rows(directions: Any) -> Tensor:  # (n, P)
    if isinstance(directions, SWAG):
        most = max(len(directions.deviations) - 1, 1)
        directions = Subspace.pca(directions, rank=min(_COMPONENTS, most))
    if isinstance(directions, Affine):
        directions = directions.basis
    if isinstance(directions, SpectrumResult):
        directions = directions.eigenvectors
    if not isinstance(directions, Tensor) or directions.ndim not in (1, 2) or not len(directions):
        raise ConfigError(
            "directions: expected a number, a tensor (n, P), a Subspace, SWAG, or a spectrum with "
            f"eigenvectors, got {type(directions).__name__}; ll.spectrum(surface, w, "
            "eigenvectors=True) has them."
        )
    return directions.reshape(-1, directions.shape[-1])
