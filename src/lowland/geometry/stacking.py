"""Weights that users give, checked and stacked as anchors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lowland.core.buffers import Buffers, stack_buffers
from lowland.core.point import Point, as_point
from lowland.errors import LayoutError, NonFiniteError


def stack_weights(weights: Iterable[Any], *, what: str) -> Tensor:
    """Weight vectors of one model as (A, P): checked, and apart from what they came from.

    Raises:
        LayoutError: of different models. NonFiniteError: NaN or infinity.
    """
    rows = check_anchors(weights, what=what)
    return torch.stack([row.detach().to(rows[0].device, common_dtype(rows)) for row in rows])


def common_dtype(weights: Iterable[Tensor]) -> torch.dtype:
    """The precision of anchors made of these: float64 where one of them has it, else float32."""
    wide = any(row.dtype == torch.float64 for row in weights)
    return torch.float64 if wide else torch.float32


def check_anchors(weights: Iterable[Any], *, what: str) -> list[Tensor]:
    """Weight vectors of one model, themselves; raises what `stack_weights` does."""
    rows = [as_point(w, what=f"{what} {i}").weights for i, w in enumerate(weights)]
    for i, row in enumerate(rows):
        if row.shape != rows[0].shape:
            raise LayoutError(
                f"{what}: expected weights of one model, got {tuple(rows[0].shape)} and "
                f"{tuple(row.shape)}."
            )
        if not bool(torch.isfinite(row.sum())) and not bool(torch.isfinite(row).all()):
            raise NonFiniteError(
                f"{what} {i} holds NaN or infinite values; take weights of a run that converged."
            )
    return rows


def stack_weight_buffers(weights: Iterable[Any]) -> Buffers | None:
    """The buffers of those that are a `Point` with some: see `stack_buffers`."""
    return stack_buffers(w.buffers if isinstance(w, Point) else None for w in weights)
