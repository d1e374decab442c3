"""A weight vector together with the buffers that belong to it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Point(NamedTuple):
    """Weights travel with buffers: (P,) and, where they are known, tensors by buffer name."""

    weights: Tensor  # (P,)
    buffers: dict[str, Tensor] | None = None
