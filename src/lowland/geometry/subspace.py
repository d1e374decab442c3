"""Affine subspaces: random, of principal components, of a curve, or given by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lowland.core.point import Point
from lowland.errors import ConfigError
from lowland.geometry.affine import Affine, orthonormal, require_independent, rounding
from lowland.geometry.base import Shape
from lowland.geometry.pca import principal


class Subspace(Affine):
    r"""\(w(z) = \hat w + z\, B\) with directions B (k, P) as they are given (Izmailov et al. 2019).

    Args:
        center: (P,). basis: (k, P), independent directions; z is in units of their lengths.

    >>> sub = Subspace(torch.ones(3), torch.tensor([[0.0, 2.0, 0.0]]))
    >>> sub([[0.5]])
    tensor([[1., 2., 1.]])
    """

    def __init__(self, center: Tensor | Point, basis: Tensor) -> None:
        if basis.ndim != 2 or not len(basis):
            raise ConfigError(f"basis: expected (k, P), k at least 1, got {tuple(basis.shape)}.")
        super().__init__(center, basis)

    @classmethod
    def random(cls, w: Tensor | Point, *, rank: int = 5, seed: int = 0) -> Subspace:
        """Orthonormal directions, uniform among all: Gaussian vectors, orthonormalised."""
        center = w.weights if isinstance(w, Point) else w
        if not 1 <= rank <= center.shape[-1]:
            raise ConfigError(f"rank: expected 1 to {center.shape[-1]}, got {rank}.")
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(rank, center.shape[-1], generator=generator)
        return cls(center, orthonormal(rows.to(center)))

    @classmethod
    def pca(cls, source: Any, *, rank: int = 5) -> Subspace:
        r"""Principal components of a trajectory or of SWAG's deviations, around the mean.

        Direction i is \(s_i v_i / \sqrt{K - 1}\), a component scaled by the standard deviation of
        the K iterates along it, from the K x K Gram matrix in float64.

        Args:
            source: a `Trajectory`, a `SWAG`, or iterates (K, P). rank: at most what they span.
        """
        center, basis = principal(source, rank)
        return cls(center, basis)

    @classmethod
    def from_curve(cls, curve: Shape) -> Subspace:
        """The subspace of a curve's anchors, around its ends' middle.

        The first direction leads from the middle to the last end, the others to the bends, freed
        of what lies along the ones before (for one bend, the plane of Izmailov et al. 2019).

        Raises:
            ConfigError: bends on the chord, as those of a curve that was not fitted.
        """
        ends, bends = curve.anchors[[0, -1]], curve.anchors[1:-1]
        center = ends.mean(0)
        rows = torch.cat([ends[1:], bends]) - center
        try:
            require_independent(rows, noise=rounding(curve.anchors))
        except ConfigError:
            raise ConfigError(
                "the curve's bends lie on its chord, or in fewer dimensions than there are bends; "
                "fit the curve first."
            ) from None
        unit = orthonormal(rows)
        heights = (rows.double() * unit.double()).sum(1, keepdim=True)
        return cls(center, unit * heights.to(unit.dtype))

    def sample_coords(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal, (n, k)."""
        z = torch.randn(n, self.k, generator=generator, dtype=torch.float64)
        return z.to(self.device)
