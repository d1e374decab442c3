"""A weight vector together with the buffers that belong to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from lowland.errors import LayoutError


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


def as_point(w: Any, *, what: str) -> Point:
    """A weight vector (P,), or a `Point`, as a point.

    Raises:
        LayoutError: anything else, models among it; it names `what` was to be weights.

    >>> as_point(nn.Linear(1, 1), what="the centre")
    Traceback (most recent call last):
    lowland.errors.LayoutError: the centre: expected weights (P,), got Linear; give
    surface.point(model).
    """
    point = w if isinstance(w, Point) else Point(w)
    weights = point.weights
    if isinstance(weights, Tensor) and weights.ndim == 1 and weights.is_floating_point():
        return point
    got, advice = type(weights).__name__, "give a flat floating-point tensor or a Point"
    if isinstance(weights, Tensor):
        got = f"{str(weights.dtype).removeprefix('torch.')} {tuple(weights.shape)}"
    elif isinstance(weights, nn.Module):
        advice = "give surface.point(model)"
    elif isinstance(weights, Mapping):
        advice = "give layout.flatten(state_dict)"
    raise LayoutError(f"{what}: expected weights (P,), got {got}; {advice}.")
