r"""Lanczos' method with full reorthogonalisation: eigenpairs, and Gauss quadrature of the spectrum.

Without reorthogonalisation the basis loses its orthogonality as soon as an eigenvalue converges,
and further copies of it ("ghosts") appear (Paige 1976). So each vector is made orthogonal to all
before it, twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lowland import checks
from lowland.core.inner import inner
from lowland.core.seeds import stream
from lowland.errors import LowlandError

Product = Callable[[Tensor], Tensor]  # (P,) -> (P,) float64

_EXTRA = 40  # vectors of the basis beyond twice the eigenpairs: fewer restarts, more memory


class Eigenpairs(NamedTuple):
    """The largest eigenvalues, largest first.

    Attributes:
        values: (k,) float64. vectors: (k, P), orthonormal. residuals: (k,), |A v - lambda v|.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor


def basis_size(size: int, top: int) -> int:
    """How many vectors (P,) the search for `top` eigenpairs holds.

    >>> basis_size(1000, 10), basis_size(30, 10)
    (60, 30)
    """
    return min(size, 2 * top + _EXTRA)


def leading_eigenpairs(
    product: Product,
    start: Tensor,  # (P,)
    top: int,
    *,
    tolerance: float = 1e-3,
    most: int = 2000,
) -> Eigenpairs:
    r"""The largest eigenvalues of a symmetric matrix, and their vectors.

    Lanczos' method from a random vector, restarted with the best Ritz vectors when its basis of
    `basis_size` vectors is full (Wu and Simon 2000), until each residual is at most `tolerance`
    times the largest absolute Ritz value; the error of an eigenvalue is of the order of the square
    of its residual. Eigenvalues that are exactly equal are counted once, unless the method exhausts
    an invariant subspace: it then continues in the complement.

    Args:
        product: v -> A v. start: a random vector, in the dtype of the basis.
        top: how many. most: products.

    Raises:
        LowlandError: no convergence within `most` products.

    >>> diagonal = torch.tensor([3.0, -5.0, 1.0, 2.0])
    >>> pairs = leading_eigenpairs(lambda v: diagonal * v.double(), torch.ones(4), 2)
    >>> pairs.values, pairs.vectors.abs().round(decimals=4)
    (tensor([3., 2.], dtype=torch.float64), tensor([[1., 0., 0., 0.],
            [0., 0., 0., 1.]]))
    """
    size = len(start)
    top = checks.whole("top", top, least=1, most=size)
    width = basis_size(size, top)
    with checks.memory("the vectors of Lanczos' basis", width):
        basis = start.new_empty(width, size)
    projected = torch.zeros(width, width, dtype=torch.float64)
    basis[0] = start / start.norm()
    generator = stream("invariant subspace")
    rounding = 10 * torch.finfo(start.dtype).eps
    split: Tensor | None = None  # the values at the last invariant subspace
    last = 0
    for _ in range(most):
        vector = product(basis[last])
        row = orthogonalise_(vector, basis[: last + 1]).cpu()
        projected[: last + 1, last] = projected[last, : last + 1] = row
        beta = float(vector.norm())
        count = last + 1
        values, mixing = (part.flip(-1) for part in torch.linalg.eigh(projected[:count, :count]))
        scale = float(values.abs().max())
        residuals = beta * mixing[last].abs()
        converged = count >= top and float(residuals[:top].max()) <= tolerance * scale
        invariant = beta <= rounding * scale
        if invariant and converged:  # copies of eigenvalues may lie in the complement
            equal = split is not None and torch.allclose(split, values[:top], rounding, 0)
            finished, split = equal, values[:top]
        else:
            finished = converged and split is None
        if finished or count == size:
            vectors = mixing[:, :top].T.to(basis) @ basis[:count]
            return Eigenpairs(values[:top].to(start.device), vectors, residuals[:top])
        if count == width:
            last = _restart(basis, projected, values, mixing, retained=(top + width) // 2)
        following = vector
        if invariant:
            following = torch.randn(size, generator=generator, dtype=torch.float64).to(vector)
        orthogonalise_(following, basis[: last + 1])
        last += 1
        basis[last] = following / following.norm()
    raise LowlandError(
        f"the {top} largest eigenvalues did not converge in {most} products; ask for "
        "fewer of them, or move the model to float64."
    )


def _restart(
    basis: Tensor, projected: Tensor, values: Tensor, mixing: Tensor, *, retained: int
) -> int:
    """Replaces a full basis by its first Ritz vectors; returns the place of the last one."""
    retained = min(retained, len(basis) - 1)
    basis[:retained] = mixing[:, :retained].T.to(basis) @ basis
    projected.zero_()
    projected[:retained, :retained] = values[:retained].diag()
    return retained - 1


class Quadrature(NamedTuple):
    """Nodes (m,) and weights (m,), which sum to 1, of the spectrum that a vector sees."""

    nodes: Tensor
    weights: Tensor


def lanczos_quadrature(
    product: Product,
    start: Tensor,  # (P,)
    steps: int,
    *,
    complement_of: Tensor | None = None,  # (k, P)
) -> Quadrature:
    r"""Gauss quadrature of \(v^T f(A) v\) for the unit vector v along `start`.

    \(v^T f(A) v \approx \sum_j \omega_j f(\theta_j)\), exact for polynomials of degree below 2 m
    (Golub and Welsch 1969), from m products: nodes are the eigenvalues of Lanczos' tridiagonal
    matrix, weights the squares of the first entries of its eigenvectors. Where the method exhausts
    an invariant subspace earlier, the last nodes have the weight 0.

    Args:
        product: v -> A v. steps: m, at most P. complement_of: orthonormal vectors; the quadrature
            is of A in their complement.

    >>> quadrature = lanczos_quadrature(lambda v: torch.tensor([1.0, 3.0]) * v, torch.ones(2), 2)
    >>> quadrature.nodes, quadrature.weights
    (tensor([1., 3.], dtype=torch.float64), tensor([0.5000, 0.5000], dtype=torch.float64))
    """
    size, steps = len(start), min(steps, len(start))
    around = start.new_empty(0, size) if complement_of is None else complement_of.to(start)
    with checks.memory("steps", steps):
        basis = start.new_empty(steps, size)
    diagonal = torch.zeros(steps, dtype=torch.float64)
    beside = torch.zeros(steps, dtype=torch.float64)
    rounding = 10 * torch.finfo(start.dtype).eps
    vector, count = start.double(), 0
    orthogonalise_(vector, around)
    norm = float(vector.norm())
    for i in range(steps):
        basis[i] = vector / norm
        vector = product(basis[i]).double()
        orthogonalise_(vector, around)
        diagonal[i] = float(inner(basis[i], vector))
        orthogonalise_(vector, basis[: i + 1])
        count, norm = i + 1, float(vector.norm())
        if norm <= rounding * float(diagonal.abs().max() + beside.max()):
            break
        beside[i] = norm
    off = beside[: count - 1]
    matrix = diagonal[:count].diag() + off.diag(1) + off.diag(-1)
    values, vectors = torch.linalg.eigh(matrix)
    nodes, weights = values[-1].expand(steps).clone(), torch.zeros_like(diagonal)
    nodes[:count], weights[:count] = values, vectors[0] ** 2
    return Quadrature(nodes, weights)


def orthogonalise_(vector: Tensor, basis: Tensor) -> Tensor:  # (P,), (k, P) -> (k,) float64
    """Takes the parts along orthonormal rows out of a float64 vector, in place, and returns them:
    Gram-Schmidt twice, which is enough (Giraud et al. 2005).

    >>> vector = torch.tensor([1.0, 2.0]).double()
    >>> orthogonalise_(vector, torch.tensor([[0.0, 1.0]])), vector
    (tensor([2.], dtype=torch.float64), tensor([1., 0.], dtype=torch.float64))
    """
    total = torch.zeros(len(basis), dtype=torch.float64, device=vector.device)
    for _ in range(2):
        parts = basis @ vector.to(basis)
        vector -= parts @ basis
        total += parts
    return total
