r"""Volumes of simplexes, from inner products of their vertices.

The edges of a simplex with vertices \(v_0, \dots, v_k\) are \(e_i = v_i - v_0\), its volume
\(V = \sqrt{\det E E^T} / k!\). The Cayley and Menger determinant gives the same number, and
overflows float32 at 12 vertices of a million parameters: here everything is float64 and logarithms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowland.errors import ConfigError

_FLAT = 1e-6  # height over edge below which a simplex of float32 weights is flat


def edges_of(gram: Tensor) -> Tensor:  # (k + 1, k + 1) -> (k, k)
    """The edges' Gram matrix, from the vertices' inner products as seen from any one point."""
    return gram[1:, 1:] - gram[1:, :1] - gram[:1, 1:] + gram[:1, :1]


def log_volume(gram: Tensor) -> Tensor:  # (k + 1, k + 1) -> ()
    r"""\(\tfrac12 \log\det(E E^T) - \log k!\), differentiable; -inf for a flat simplex, 0 for a
    point.

    Args:
        gram: float64 inner products of the vertices, as seen from any one point.

    >>> triangle = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    >>> log_volume(triangle @ triangle.T).exp()
    tensor(3.0000, dtype=torch.float64)
    """
    k = len(gram) - 1
    if k == 0:
        return gram.new_zeros(())
    heights = _heights(gram)
    return heights.log().sum() - math.lgamma(k + 1)


def _heights(gram: Tensor) -> Tensor:  # (k + 1, k + 1) -> (k,)
    """The distance of each vertex but the first from the flat through those before it."""
    edges = edges_of(gram)
    lengths = edges.diagonal().clamp_min(0).sqrt()
    # of edges of length one: the factor is as accurate for slender simplexes as for regular ones
    unit = edges / lengths / lengths[:, None]
    factor, failed = torch.linalg.cholesky_ex(torch.where(unit.isnan(), 0.0, unit))
    if int(failed):
        return torch.zeros_like(lengths)
    heights: Tensor = factor.diagonal() * lengths
    return heights


def height(gram: Tensor) -> float:
    """The distance of the last vertex from the flat through the others; NaN for a point."""
    return float(_heights(gram)[-1]) if len(gram) > 1 else math.nan


def mean_edge(gram: Tensor) -> float:
    """The mean distance between two vertices; 0 for a point."""
    if len(gram) == 1:
        return 0.0
    squares = gram.diagonal()[:, None] + gram.diagonal() - 2 * gram
    i, j = torch.triu_indices(len(gram), len(gram), 1)
    return float(squares[i, j].clamp_min(0).sqrt().mean())


def require_volume(gram: Tensor, *, size: int, noise: float) -> None:
    """Raises `ConfigError` where vertices lie in fewer dimensions than a simplex of them has.

    Args:
        gram: as for `log_volume`. size: P. noise: the length of rounding.
    """
    k = len(gram) - 1
    if k == 0:
        return
    if k > size:
        raise ConfigError(
            f"{k + 1} vertices span no simplex in {size} dimensions; take at most {size + 1}."
        )
    squares = gram.diagonal()[:, None] + gram.diagonal() - 2 * gram
    same = (squares.clamp_min(0).sqrt() <= noise).triu(1).nonzero().tolist()
    if same:
        i, j = same[0]
        raise ConfigError(
            f"vertices {i} and {j} are the same weights, up to rounding, and the simplex has no "
            "volume; leave one out, or take them further apart."
        )
    longest = float(squares.max().clamp_min(0).sqrt())
    if float(_heights(gram).min()) <= max(_FLAT * longest, noise):
        raise ConfigError(
            "the vertices lie in fewer dimensions than their number asks for, as three points on a "
            "line do, so that the simplex has no volume; take others, or a larger jitter where one "
            "of them came from grow()."
        )
