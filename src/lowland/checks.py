"""Checks of arguments: numbers, dtypes, devices, models and functions."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import torch
from torch import nn

from lowland.errors import ConfigError, LowlandError

SEEDS = 1 << 63  # seeds are below it


def whole(
    name: str,
    value: Any,
    *,
    least: int | None = None,
    most: int | None = None,
    hint: str = "",
) -> int:
    """A whole number as an int: NumPy's, whole floats and tensors of one number are taken, too.

    `hint`: what to do, where the bounds do not say it.

    Raises:
        ConfigError: anything else, True and False among it, and numbers out of bounds.

    >>> whole("rank", torch.tensor(20)), whole("rank", 20.0)
    (20, 20)
    >>> whole("samples", 1.5, least=1)
    Traceback (most recent call last):
    lowland.errors.ConfigError: samples: expected a whole number of at least 1, got 1.5.
    """
    plain = _plain(value)
    fits = isinstance(plain, Integral) or (isinstance(plain, float) and plain.is_integer())
    if fits and not isinstance(plain, bool):
        result = int(plain)
        if (least is None or result >= least) and (most is None or result <= most):
            return result
    bounds = _bounds(least=least, most=most)
    raise ConfigError(_text(name, f"a whole number{bounds}", value, hint))


def number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    hint: str = "",
) -> float:
    """A finite number as a float: NumPy's and tensors of one number are taken, too.

    Raises:
        ConfigError: anything else, NaN, infinity, True and False among it, and numbers out of
            bounds.

    >>> number("decay", 0.9, least=0, below=1)
    0.9
    >>> number("scale", math.nan, least=0)
    Traceback (most recent call last):
    lowland.errors.ConfigError: scale: expected a number of at least 0, got nan.
    """
    plain = _plain(value)
    if isinstance(plain, Real) and not isinstance(plain, bool):
        result = float(plain)
        if (
            math.isfinite(result)
            and (least is None or result >= least)
            and (above is None or result > above)
            and (most is None or result <= most)
            and (below is None or result < below)
        ):
            return result
    bounds = _bounds(least=least, above=above, most=most, below=below)
    raise ConfigError(_text(name, f"a {'' if bounds else 'finite '}number{bounds}", value, hint))


def numbers(name: str, value: Any, **options: Any) -> list[float]:
    """One number, or several in a sequence, an array or a tensor, each as `number` takes it.

    >>> numbers("scales", (0, 0.5), least=0)
    [0.0, 0.5]
    """
    several = value.tolist() if getattr(value, "ndim", 0) else value
    if not isinstance(several, Sequence) or isinstance(several, str):
        several = [value]
    return [number(name, one, **options) for one in several]


def choice(name: str, value: Any, among: Iterable[Any], *, hint: str = "") -> None:
    """Raises `ConfigError` unless the value is one of some.

    >>> choice("method", "gird", ("grid", "tempering"))
    Traceback (most recent call last):
    lowland.errors.ConfigError: method: expected one of grid, tempering, got 'gird'.
    """
    choices = tuple(among)
    if value not in choices:
        raise ConfigError(_text(name, f"one of {', '.join(map(str, choices))}", value, hint))


def fields(target: Any, check: Callable[..., Any], *names: str, **bounds: Any) -> None:
    """Replaces fields of a dataclass by their checked values; a None that is the default stays.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Options:
    ...     samples: int = 10
    ...     chunk: int | None = None
    ...
    ...     def __post_init__(self):
    ...         fields(self, whole, "samples", "chunk", least=1)
    >>> Options(samples=20.0)
    Options(samples=20, chunk=None)
    """
    for name in names:
        value = getattr(target, name)
        if value is not None or target.__dataclass_fields__[name].default is not None:
            object.__setattr__(target, name, check(name, value, **bounds))


def seed(value: Any) -> int:
    """A seed: a whole number from 0 to 2^63 - 1.

    >>> seed(3)
    3
    """
    return whole("seed", value, least=0, most=SEEDS - 1)


def dtype(name: str, value: Any, among: tuple[torch.dtype, ...] = ()) -> torch.dtype:
    """A floating-point dtype, by itself or by its name, as in configurations.

    >>> dtype("autocast", "bfloat16")
    torch.bfloat16
    """
    kind = getattr(torch, value.removeprefix("torch."), None) if isinstance(value, str) else value
    if isinstance(kind, torch.dtype) and (kind in among if among else kind.is_floating_point):
        return kind
    some = " or ".join(str(one) for one in among) or "such as torch.float32"
    raise ConfigError(f"{name}: expected a floating-point dtype, {some}, got {_repr(value)}.")


@contextmanager
def memory(name: str, value: int) -> Iterator[None]:
    """Turns a failed allocation inside into a `ConfigError` that names the argument.

    >>> with memory("rank", 10**15):
    ...     torch.empty(10**15)
    Traceback (most recent call last):
    lowland.errors.ConfigError: rank: 1,000,000,000,000,000 takes more memory than ...
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch's own is the former
        raise ConfigError(
            f"{name}: {value:,} takes more memory than can be had ({_line(error)}); choose a "
            "smaller one."
        ) from error


def device(value: Any, *, meta: bool = False) -> torch.device:
    """A device that tensors can be put on here; `meta`: or torch's device of shapes alone.

    >>> device("cpu")
    device(type='cpu')
    """
    try:
        result = torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            f"device: expected 'cpu', 'cuda' or another device of torch's, got {_repr(value)}."
        ) from error
    if result.type == "meta" and not meta:
        raise ConfigError("device: nothing can be computed on 'meta'; take 'cpu'.")
    try:
        torch.empty(1, device=result)
    except Exception as error:  # torch has as many kinds as reasons
        raise ConfigError(
            f"device: {result} cannot be used here ({_line(error)}); take 'cpu'."
        ) from error
    return result


def module(name: str, value: Any) -> nn.Module:
    """A model, which is an `nn.Module` and not its class."""
    if isinstance(value, nn.Module):
        return value
    if isinstance(value, type) and issubclass(value, nn.Module):
        kind = value.__name__
        raise ConfigError(f"{name}: got the class {kind}; make a model of it: {kind}(...).")
    raise ConfigError(f"{name}: expected an nn.Module, got {_repr(value)}.")


def function(name: str, value: Any, *, example: str) -> None:
    """Raises `ConfigError` unless the value is a function, or None; the `example` is one.

    >>> function("optimizer", "adam", example="lambda params: torch.optim.Adam(params)")
    Traceback (most recent call last):
    lowland.errors.ConfigError: optimizer: expected a function, got 'adam'; write
    optimizer=lambda params: torch.optim.Adam(params).
    """
    if value is not None and not callable(value):
        raise ConfigError(_text(name, "a function", value, f"write {name}={example}"))


def package(name: str, *, extra: str, purpose: str) -> Any:
    """An optional package, imported where it is needed.

    >>> package("no_such_package", extra="samplers", purpose="'flow'")
    Traceback (most recent call last):
    lowland.errors.LowlandError: 'flow' needs no_such_package: pip install "lowland[samplers]".
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        needed = error.name or name
        raise LowlandError(f'{purpose} needs {needed}: pip install "lowland[{extra}]".') from error


def _text(name: str, expected: str, value: Any, hint: str) -> str:
    return f"{name}: expected {expected}, got {_repr(value)}{hint and f'; {hint}'}."


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")


def _plain(value: Any) -> Any:
    """Tensors and arrays of one number, and NumPy's scalars, as Python's numbers."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _repr(value: Any) -> str:
    """A value in an error message: short, and with its type where that is what is wrong."""
    value = _plain(value)
    if isinstance(value, str | bool | Real | torch.dtype | torch.device | None):
        return repr(value)[:80]
    return getattr(value, "__name__", None) or type(value).__name__


def _bounds(
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> str:
    if least is not None and most is not None:
        return f" from {least:,} to {most:,}"
    words = {"of at least": least, "above": above, "of at most": most, "below": below}
    return " and".join(f" {word} {bound:,}" for word, bound in words.items() if bound is not None)
