"""Axes of outputs that a task names: `class_dim` and `target_dim`."""

from __future__ import annotations

from collections.abc import Sequence

from lowland import checks
from lowland.errors import ConfigError, DataError


def require_axis(name: str, axis: int | None) -> int | None:
    """The axis itself; raises `ConfigError` for what is none, or that of the examples."""
    if axis is None:
        return None
    axis = checks.whole(name, axis)
    if axis == 0:
        raise ConfigError(
            f"{name}: expected an axis of the outputs, such as 1 or -1, got {axis!r}; axis 0 is "
            "that of the examples."
        )
    return axis


def axis_of(name: str, axis: int, shape: Sequence[int]) -> int:
    """The axis counted from the first one of a shape.

    >>> axis_of("class_dim", -1, (8, 5, 3))
    2
    """
    if not -len(shape) < axis < len(shape):
        raise DataError(
            f"{name}={axis}: outputs {tuple(shape)} have no such axis besides that of the "
            f"examples; name another {name}=."
        )
    return axis % len(shape)
