"""A weight vector together with the buffers that belong to it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Point(NamedTuple):
    """A weight vector (P,) with the buffers that belong to it, such as BatchNorm statistics.

    `buffers` are tensors by name; None: not known, so those of the model are taken.
    """

    weights: Tensor  # (P,)
    buffers: dict[str, Tensor] | None = None

    @property
    def estimated(self) -> bool:
        """Whether statistics among the buffers are taken as they are: see `EstimatedPoint`."""
        return False


class EstimatedPoint(Point):
    """A point whose statistics were estimated for exactly these weights, as `Posterior.freeze` and
    `SWA.refresh` do: evaluation takes them as they are."""

    __slots__ = ()

    @property
    def estimated(self) -> bool:
        return True
