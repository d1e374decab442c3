"""Affine subspaces: random, of principal components, of a curve, of the curvature, or by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lowland import checks
from lowland.core.buffers import interpolate_buffers
from lowland.core.point import Point, as_point
from lowland.core.seeds import stream
from lowland.errors import ConfigError
from lowland.geometry.affine import (
    Affine,
    orthonormal,
    orthonormalise_,
    require_independent,
    rounding,
)
from lowland.geometry.base import Shape
from lowland.geometry.pca import mean_buffers, principal
from lowland.geometry.rank import Rank
from lowland.geometry.stacking import check_anchors, common_dtype, stack_weight_buffers
from lowland.progress import Progress, reporting

if TYPE_CHECKING:
    from lowland.core.surface import LossSurface

CURVATURES = ("hessian", "ggn")
SCALES = ("unit", "laplace")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}  # of eigenpairs, as products are rounded


class Subspace(Affine):
    r"""\(w(z) = \hat w + z\, B\) with directions B (k, P) as they are given (Izmailov et al. 2019).

    Args:
        center: (P,). basis: (k, P), independent directions; z is in units of their lengths. All
            weights of a small network are `Subspace(w, torch.eye(len(w)))`.

    Attributes:
        explained_variance_ratio: (k,) float64, the share of the variance along each direction of
            `pca`, else None.
        eigenvalues: (k,) float64, the curvature along each direction of `hessian`, else None.

    Raises:
        ConfigError: no direction, or some that depend on one another. LayoutError: weights of
            different models. NonFiniteError: NaN or infinity.

    >>> sub = Subspace(torch.ones(3), torch.tensor([[0.0, 2.0, 0.0]]))
    >>> sub([[0.5]])
    tensor([[1., 2., 1.]])
    """

    explained_variance_ratio: Tensor | None = None
    eigenvalues: Tensor | None = None

    def __init__(self, center: Tensor | Point, basis: Tensor) -> None:
        if basis.ndim != 2 or not len(basis):
            raise ConfigError(f"basis: expected (k, P), k at least 1, got {tuple(basis.shape)}.")
        super().__init__(center, basis)

    @classmethod
    def random(cls, w: Tensor | Point, *, rank: int = 5, seed: int = 0) -> Subspace:
        """Orthonormal directions, uniform among all: Gaussian vectors, orthonormalised."""
        center = as_point(w, what="the center").weights
        rank = checks.whole("rank", rank, least=1, most=center.shape[-1])
        seed = checks.seed(seed)
        check_anchors([center], what="the center")
        generator = stream("subspace", seed)
        # centre and directions in one tensor, in place: of a large network there is no second one
        with checks.memory("rank", rank):
            anchors = torch.empty(1 + rank, len(center))
        anchors[1:].normal_(generator=generator)
        anchors = anchors.to(center.device, common_dtype([center]))
        orthonormalise_(anchors[1:])
        anchors[0] = center.detach()  # last: memory that nobody wrote to yet is not taken
        return cls._of(anchors, buffers=stack_weight_buffers([w]))

    @classmethod
    def pca(cls, source: Any, *, rank: Rank = 5) -> Subspace:
        r"""Principal components of a trajectory or of SWAG's deviations, around the mean.

        Direction i is \(s_i v_i / \sqrt{K - 1}\), a component scaled by the standard deviation of
        the K iterates along it, from the K x K Gram matrix in float64.

        Args:
            source: a `Trajectory`, a `SWAG`, a `FrequentDirections`, or iterates (K, P).
            rank: how many directions, at most what the iterates span; a number between 0 and 1 for
                as many as explain that share of the variance; or "evidence", for the rank of the
                highest evidence of probabilistic PCA (Minka 2000) within the dimensions that the
                iterates span.

        Raises:
            ConfigError: more directions than there are. DataError: fewer than two iterates.

        >>> iterates = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0, 0.5, 0], [0, -0.5, 0]])
        >>> sub = Subspace.pca(iterates, rank=0.5)
        >>> sub.k, sub.explained_variance_ratio
        (1, tensor([0.8000], dtype=torch.float64))
        """
        anchors, ratio = principal(source, rank)
        sub = cls._of(
            anchors, buffers=stack_weight_buffers([Point(anchors[0], mean_buffers(source))])
        )
        sub.explained_variance_ratio = ratio
        return sub

    @classmethod
    def hessian(
        cls,
        surface: LossSurface,
        w: Tensor | Point,
        *,
        rank: int = 5,
        kind: str = "hessian",
        scale: str = "unit",
        seed: int = 0,
        loader: Iterable[Any] | None = None,
        progress: Progress = False,
    ) -> Subspace:
        r"""The directions of highest curvature of L at w, by Lanczos' method.

        The eigenvectors of the largest eigenvalues \(\lambda_i\) of \(\nabla^2 L(w)\), or of the
        generalised Gauss-Newton matrix
        \(\frac1n \sum_i J_i^T (\nabla^2_f {-\log p}(y_i | f_i)) J_i\), J the Jacobian of the
        outputs f. L is that of `surface(w)`: its examples, evaluation mode, with the BatchNorm
        statistics of w held fixed. P x P is never formed: a product with a vector is a pass over
        the examples.

        Args:
            rank: how many. kind: "hessian" or "ggn".
            scale: "unit" for orthonormal directions; "laplace" for lengths of
                \(1 / \sqrt{n \lambda_i}\), the standard deviations of Laplace's approximation to
                the likelihood of n items.
            seed: of the vector that Lanczos' method starts at.
            loader: other examples than the surface's.
            progress: True for a bar, or a callable of (products, None); the total is unknown.

        Raises:
            ConfigError: an unknown option, more directions than weights; "laplace" where the loss
                does not curve upwards; a model without a second derivative. NonFiniteError: no
                finite loss at w. LowlandError: no convergence.

        >>> from lowland import LossSurface, Regression
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> net = torch.nn.Linear(2, 1, bias=False)
        >>> surface = LossSurface(net, Regression(noise_variance=1.0), [(x, torch.zeros(2, 1))])
        >>> sub = Subspace.hessian(surface, torch.zeros(2), rank=1)  # x^T x / n = diag(2, 1/2)
        >>> sub.eigenvalues, sub.basis.abs()
        (tensor([2.], dtype=torch.float64), tensor([[1., 0.]]))
        """
        from lowland.curvature.lanczos import leading_eigenpairs
        from lowland.curvature.operators import CurvatureOperator

        checks.choice("scale", scale, SCALES)
        checks.choice("kind", kind, CURVATURES)
        rank = checks.whole("rank", rank, least=1, most=surface.layout.size)
        seed = checks.seed(seed)
        matrix = CurvatureOperator(surface, w, kind=kind, loader=loader)
        start = torch.randn(matrix.size, generator=stream("lanczos", seed), dtype=torch.float64)
        with reporting(progress, f"{kind} products") as report:

            def product(v: Tensor) -> Tensor:
                image = matrix @ v
                report(matrix.products, None)
                return image

            tolerance = TOLERANCE.get(matrix.dtype, 1e-5)
            start = start.to(matrix.device, matrix.dtype)
            pairs = leading_eigenpairs(product, start, rank, tolerance=tolerance)
            report(matrix.products, matrix.products)  # known now
        basis, eigenvalues = pairs.vectors, pairs.values
        if scale == "laplace":
            if float(eigenvalues[-1]) <= 0:
                raise ConfigError(
                    f"scale='laplace': eigenvalue {rank} is {float(eigenvalues[-1]):.3g}, and the "
                    "loss does not curve upwards there; lower the rank, train to a minimum, or "
                    "take kind='ggn'."
                )
            basis = basis / (matrix.items * eigenvalues).sqrt()[:, None].to(basis)
        sub = cls(matrix.point, basis)
        sub.eigenvalues = eigenvalues
        return sub

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
        middle = None
        if curve.buffers is not None:
            shares = torch.zeros(1, len(curve.anchors))
            shares[0, [0, -1]] = 0.5
            mean = interpolate_buffers(shares, curve.buffers)
            middle = {name: value[0] for name, value in mean.items()}
        return cls(Point(center, middle), unit * heights.to(unit.dtype))

    def sample_coords(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal, (n, k)."""
        n = checks.whole("n", n, least=1)
        z = torch.randn(n, self.k, generator=generator, dtype=torch.float64)
        return z.to(self.device)
