"""The point of a simplex that is nearest to another: Wolfe's algorithm (1976), exact."""

from __future__ import annotations

import torch
from torch import Tensor

from lowland.errors import NonFiniteError

_ROUNDING = 1e-14


def nearest(gram: Tensor) -> Tensor:  # (A, A) -> (A,)
    """Barycentric coordinates of the point of the hull of A points that is nearest to zero.

    Args:
        gram: the points' inner products, float64; only these matter.

    >>> points = torch.tensor([[1.0, 1.0], [1.0, -3.0], [4.0, 0.0]], dtype=torch.float64)
    >>> nearest(points @ points.T)
    tensor([0.7500, 0.2500, 0.0000], dtype=torch.float64)
    """
    if not bool(torch.isfinite(gram).all()):
        raise NonFiniteError("weights that are NaN, infinite or too large have no nearest point.")
    weights = torch.zeros_like(gram[0])
    support = [int(gram.diagonal().argmin())]  # a face that has the best point so far in its inside
    weights[support] = 1
    least = _ROUNDING * float(gram.diagonal().max())
    for _ in range(100 + 10 * len(gram)):
        slopes = gram @ weights
        best = int(slopes.argmin())
        if best in support or float(weights @ slopes - slopes[best]) <= least:
            return weights
        support.append(best)
        while True:
            inside = _flat(gram[support][:, support])
            if bool((inside > _ROUNDING).all()):
                weights = torch.zeros_like(weights)
                weights[support] = inside
                break
            # back to the face that the way to that point leaves the simplex through
            before = weights[support]
            out = inside <= _ROUNDING
            share = (before / (before - inside))[out].min().clamp(0, 1)
            after = torch.lerp(before, inside, share)
            after[out & (after <= _ROUNDING)] = 0
            after[out & (after == after[out].min())] = 0
            support = [one for one, value in zip(support, after.tolist(), strict=True) if value > 0]
            weights = torch.zeros_like(weights)
            weights[support] = after[after > 0] / after.sum()
    return weights  # of vertices that are nearly one: rounding leads around in a circle


def _flat(gram: Tensor) -> Tensor:  # (S, S) -> (S,)
    """Coordinates of the nearest point of the flat through the points: they sum to one."""
    n = len(gram)
    scale = gram.diagonal().max().clamp_min(torch.finfo(gram.dtype).tiny)
    system = torch.ones(n + 1, n + 1, dtype=gram.dtype, device=gram.device)
    system[:n, :n] = gram / scale
    system[n, n] = 0
    right = torch.zeros(n + 1, dtype=gram.dtype, device=gram.device)
    right[n] = 1
    solution: Tensor = torch.linalg.solve(system, right)[:n]
    return solution
