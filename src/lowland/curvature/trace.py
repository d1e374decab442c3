r"""Traces from products with random vectors: Hutchinson's estimate, and Hutch++."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from lowland import checks
from lowland.core.inner import inner
from lowland.core.seeds import stream
from lowland.curvature.interval import Interval, mean_interval


class Matrix(Protocol):
    """A symmetric (P, P) matrix that is known by its products, such as `CurvatureOperator`."""

    @property
    def size(self) -> int: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    def __matmul__(self, v: Tensor) -> Tensor: ...


def hutchinson(matrix: Matrix, *, probes: int = 20, seed: int = 0) -> Interval:
    r"""The mean of \(z^T A z\), z of independent signs (Hutchinson 1989), in `probes` products.

    Its variance is \(2 \sum_{i \ne j} A_{ij}^2\) over the number of probes.
    The interval is Student's, at 95%; infinite with one probe.

    >>> from lowland.core import LossSurface, Regression
    >>> from lowland.curvature.operators import CurvatureOperator
    >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), [(x, torch.zeros(2, 1))])
    >>> hutchinson(CurvatureOperator(surface, torch.zeros(2)), probes=2)  # diagonal: exact
    Interval(mean=2.5, low=2.5, high=2.5)
    """
    probes = checks.whole("probes", probes, least=1)
    seed = checks.seed(seed)
    draw = _signs(matrix, lambda i: stream("hutchinson", seed, i))
    return mean_interval(_quadratic_forms(matrix, draw, probes))


def hutch_plus_plus(matrix: Matrix, *, products: int = 30, seed: int = 0) -> Interval:
    r"""The trace as that in a subspace, exactly, and Hutchinson's estimate in its complement (Meyer
    et al. 2021): \(\mathrm{tr}(Q A Q^T) + \mathrm{tr}((I - Q^T Q) A (I - Q^T Q))\).

    Q (k, P) are orthonormal vectors along products with k random ones, so that of a positive
    semi-definite matrix with few large eigenvalues little is left to estimate: the relative error
    falls with 1 / products, instead of with its root. A third of the products each makes Q, gives
    the first trace and estimates the second. The interval is that of the estimate.

    >>> from lowland.core import LossSurface, Regression
    >>> from lowland.curvature.operators import CurvatureOperator
    >>> x = torch.tensor([[2.0, 1.0], [2.0, 1.0]])  # of rank 1
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), [(x, torch.zeros(2, 1))])
    >>> round(hutch_plus_plus(CurvatureOperator(surface, torch.zeros(2)), products=6).mean, 4)
    5.0
    """
    third = checks.whole("products", products, least=3) // 3
    third = min(third, matrix.size)
    seed = checks.seed(seed)
    draw = _signs(matrix, lambda i: stream("hutch++", seed, i))
    sketch = matrix @ torch.stack([draw(i) for i in range(third)], 1)
    basis = torch.linalg.qr(sketch).Q.to(matrix.dtype)  # (P, k)
    images = matrix @ basis
    exact = float((basis * images).sum(dtype=torch.float64))
    if third == matrix.size:
        return Interval(exact, exact, exact)

    def in_complement(i: int) -> Tensor:
        z = draw(third + i)
        z -= basis @ (basis.T @ z)
        return z

    return mean_interval(exact + _quadratic_forms(matrix, in_complement, third))


def _signs(matrix: Matrix, generator: Callable[[int], torch.Generator]) -> Callable[[int], Tensor]:
    """i -> the i-th vector (P,) of independent signs, by the i-th generator."""

    def draw(i: int) -> Tensor:
        signs = torch.randint(2, (matrix.size,), generator=generator(i), dtype=torch.int8)
        return (2 * signs - 1).to(matrix.device, matrix.dtype)

    return draw


def _quadratic_forms(matrix: Matrix, draw: Callable[[int], Tensor], count: int) -> Tensor:
    vectors = map(draw, range(count))
    return torch.stack([inner(z, matrix @ z) for z in vectors]).cpu()
