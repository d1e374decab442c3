"""The uniform distribution on a shape: an ensemble of simplexes draws from it."""

from __future__ import annotations

from torch import Tensor

from lowland.core.point import Point
from lowland.core.seeds import stream
from lowland.errors import ConfigError
from lowland.geometry import Affine, Curve, Shape
from lowland.posteriors.base import Posterior

MEASURES = ("coords", "arc")
_STRATA = 64  # draws that are stratified together, where the shape can


class Uniform(Posterior):
    """Uniform on a simplex, a complex of simplexes, or a curve (Benton et al. 2021).

    An ESPRO ensemble is a `Mixture` of one on each simplex. A complex is uniform by volume.

    Args:
        shape: a `Simplex`, a `SimplicialComplex` or a curve.
        measure: for curves: uniform in "coords", t, or in "arc", the length along the curve.

    Raises:
        ConfigError: a plane or a subspace, which are unbounded; "arc" for a shape that is not a
            curve.

    >>> import torch
    >>> from lowland.geometry import Simplex
    >>> triangle = Simplex(torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 2.0]]))
    >>> bool(triangle.contains(Uniform(triangle).sample(5)).all())
    True
    """

    def __init__(self, shape: Shape, *, measure: str = "coords") -> None:
        if not isinstance(shape, Shape) or isinstance(shape, Affine):
            raise ConfigError(
                f"uniform on a {type(shape).__name__} is no distribution; take a simplex, a "
                "complex or a curve."
            )
        if measure not in MEASURES or (measure == "arc" and not isinstance(shape, Curve)):
            raise ConfigError(f"measure: expected 'coords', or 'arc' for a curve, got {measure!r}.")
        self.shape = shape
        self.measure = measure
        self.size = shape.size
        if len(shape.anchors) == 1:
            self.support = 1
        self._block: tuple[tuple[int, int], Tensor] | None = None

    def coords(self, i: int, *, seed: int = 0) -> Tensor:
        """The i-th draw's coordinates, (k,) float64."""
        block, place = divmod(i, _STRATA)
        if self._block is None or self._block[0] != (seed, block):
            generator = stream("uniform", seed, block)
            coords = self.shape.sample_coords(_STRATA, generator=generator)
            if self.measure == "arc" and isinstance(self.shape, Curve):
                coords = self.shape.at_arc(coords)
            self._block = (seed, block), coords
        return self._block[1][place]

    def point(self, i: int, *, seed: int = 0) -> Point:
        return self.shape.point(self.coords(i, seed=seed)[None])
