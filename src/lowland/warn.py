"""Warnings that point at the user's line, however many calls of lowland and torch lie between."""

from __future__ import annotations

import sys
import warnings
from types import FrameType


def warn(message: str) -> None:
    """Warns at the innermost line outside of lowland and torch that led here.

    Public functions are wrapped (see `keywords`), so that a count of frames would end inside.

    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn("the chains disagree")
    >>> caught[0].message
    UserWarning('the chains disagree')
    """
    level = 1
    frame: FrameType | None = sys._getframe()
    while frame is not None and _own(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _own(module: str) -> bool:
    return module.partition(".")[0] in ("lowland", "torch")  # torch: decorators such as no_grad
