"""Calling a model; where it fails, its inputs are part of the message."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lowland.core.batchnorm import refuse_one_example
from lowland.core.data import tensors
from lowland.core.task import Task
from lowland.errors import DataError, LowlandError


class InputError(DataError, RuntimeError):
    """A model that failed on a batch. What torch raises then is most often a `RuntimeError`, and
    so is this."""


def call(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """`model(*args, **kwargs)`.

    Raises:
        InputError: whatever the model raised, which is its cause. What says nothing of the inputs,
            such as memory that is full, passes as it is.

    >>> call(nn.Linear(3, 1), (torch.zeros(5, 2),), {})
    Traceback (most recent call last):
    lowland.core.call.InputError: the model failed on inputs float32 (5, 2): RuntimeError: mat1 ...
    """
    try:
        return model(*args, **kwargs)
    except (LowlandError, Warning, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        refuse_one_example(error)
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InputError(
            f"the model failed on inputs {', '.join(_describe((args, kwargs))) or 'none'}: "
            f"{type(error).__name__}: {reason}; give it the shapes and dtypes that it was made "
            "for, or look at its forward pass."
        ) from error


def check_batch(task: Task, inputs: Any, output: Tensor, target: Any) -> None:
    """Looks at a batch, at its first pass: its target (`Task.check`), and where outputs are not
    finite, its inputs. Models that fill in missing values are left alone.

    Raises:
        DataError: labels out of range; inputs that hold NaN or infinity, and so do the outputs.
    """
    if not math.isfinite(float(output.detach().sum())):
        fits = [t for t in tensors(inputs) if t.is_floating_point() and t.ndim and len(t)]
        bad = max((int((~t.isfinite()).reshape(len(t), -1).any(1).sum()) for t in fits), default=0)
        if bad:
            raise DataError(
                f"{bad} of {len(fits[0])} examples of a batch hold NaN or infinite inputs, and "
                "the model gives no finite outputs for them; drop them, or fill these values in."
            )
    if target is not None:
        task.check(output, target)


def _describe(data: Any) -> Iterator[str]:
    """Dtype and shape of each tensor, by name where it has one, and the types of all else."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            yield from (f"{name}: {text}" for text in _describe(value))
    elif isinstance(data, tuple | list):
        for value in data:
            yield from _describe(value)
    elif isinstance(data, Tensor):
        yield f"{str(data.dtype).removeprefix('torch.')} {tuple(data.shape)}"
    else:
        yield type(data).__name__
