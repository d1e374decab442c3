"""Errors of code that is no part of the library: in one line, and where they were raised."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

from lowland.errors import LowlandError


def error_line(error: Exception) -> str:
    """An error in one line, with its place in the user's code, or else in the library's.

    >>> error_line(ValueError("no\\nlines"))
    'ValueError: no lines'
    """
    if isinstance(error, LowlandError):
        return str(error)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if is_project(f.filename)]
    own = [f for f in frames if not _is_ours(f.filename)] or frames
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {one_line(error)}{place}"


def one_line(error: Exception) -> str:
    """The message of an error without line breaks, and without the names of unnamed streams."""
    return " ".join(str(error).replace('in "<unicode string>", ', "at ").split())


def raised_by_user(error: Exception) -> bool:
    """Whether an error was raised in the user's code, or in a package that this code called."""
    frames = [f.filename for f in traceback.extract_tb(error.__traceback__)]
    users = [not _is_ours(name) for name in frames if is_project(name)]
    return bool(users) and users[-1]


def is_project(file: str) -> bool:
    """Whether a file is of a project: of no installed package and not of the standard library."""
    library = sysconfig.get_path("stdlib")
    builtin = file in ("built-in", "frozen")
    return not builtin and "site-packages" not in file and not file.startswith((library, "<"))


def _is_ours(file: str) -> bool:
    return Path(file).is_relative_to(Path(__file__).parents[1])
