"""Inner products of weight vectors."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 1 << 20  # values turned to float64 at a time


def inner(a: Tensor, b: Tensor, *, origin: Tensor | None = None) -> Tensor:
    """Inner products in float64 of weights a (..., P) and b (..., P), each with each.

    With an `origin` (P,) both are seen from there: the difference is taken in float64, so that
    points far from zero and close together lose nothing.

    >>> inner(torch.ones(2, 3), torch.tensor([1.0, 2.0, 3.0]))
    tensor([6., 6.], dtype=torch.float64)
    """
    size = a.shape[-1]
    left, right = a.reshape(-1, size), b.reshape(-1, size)
    total = torch.zeros(len(left), len(right), dtype=torch.float64, device=a.device)
    step = max(CHUNK // max(len(left), len(right), 1), 1)

    def as_float64(vectors: Tensor, part: slice) -> Tensor:
        values = vectors[:, part].double()
        return values if origin is None else values - origin[part].double()

    for start in range(0, size, step):
        part = slice(start, start + step)
        first = as_float64(left, part)
        total += first @ (first if b is a else as_float64(right, part)).T
    return total.reshape(a.shape[:-1] + b.shape[:-1])
