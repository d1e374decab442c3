"""Negative log-likelihoods of the outputs of many points, and the form of their task."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lowland.core import Classification, Task
from lowland.core.task import at_least_float32

_FEW_CLASSES = 32  # up to so many, examples come last in memory


def resolve_task(
    task: Task, outputs: Tensor, target: Any, example: Callable[[], Any] | None = None
) -> Task:
    """The task with the form that the targets show, since outputs alone do not show whether labels
    are independent. For examples without targets, `example` returns a labelled batch."""
    if not isinstance(task, Classification) or task.form is not None:
        return task
    form = None
    if target is not None:
        form = task.form_of(outputs[0], target)
    elif example is not None and outputs.ndim >= 3 and outputs.shape[2] > 1:
        labelled = example().target
        is_tensor = isinstance(labelled, Tensor)
        form = _form_of_unlabelled(task, outputs[0], labelled) if is_tensor else "multiclass"
    return task.replace(form=form)


def _form_of_unlabelled(task: Classification, output: Tensor, labelled: Tensor) -> str:
    """The form of an unlabelled batch's outputs (B, ...) by another batch's targets."""
    shape, label_shape = output.shape[1:], labelled.shape[1:]
    if labelled.is_floating_point() and label_shape == shape:
        return "multilabel"
    if shape[1:] != label_shape == shape[:-1]:
        # only the last axis can be that of the classes: an error, as for labelled examples
        return task.form_of(output, labelled[:1].expand(len(output), *label_shape))
    return "multiclass"  # or images of another size


def nll_per_item(task: Task, outputs: Tensor, target: Any) -> Tensor:
    """Negative log-likelihoods (n, items) of outputs (n, B, ...)."""
    is_plain = type(task) is Classification and task.form == "multiclass" and outputs.ndim == 3
    if is_plain and outputs.shape[2] <= _FEW_CLASSES and not outputs.is_cuda:
        return _few_classes_nll(task, outputs, target)  # type: ignore[arg-type]
    nll: Tensor = vmap_points(lambda output: task.items_nll(output, target), outputs)
    return nll


def _few_classes_nll(task: Classification, outputs: Tensor, target: Tensor) -> Tensor:
    """The same for few classes (n, B, C), for all points at once.

    On a CPU torch's softmax takes the classes value by value; with examples last in memory it takes
    many examples at once, ten times as fast for ten classes.
    """
    task.form_of(outputs[0], target)  # checks the shapes
    labels = target.long().expand(len(outputs), -1)
    examples_last = at_least_float32(outputs).mT.contiguous()  # (n, C, B)
    nll: Tensor = F.cross_entropy(
        examples_last, labels, ignore_index=task.ignore_index, reduction="none"
    )
    return nll


def vmap_points(function: Callable[[Tensor], Any], outputs: Tensor) -> Any:
    """Maps a function over n outputs; it returns a tensor, or tensors by name: (n, ...) each.

    >>> vmap_points(torch.sum, torch.ones(3, 2)).tolist()
    [2.0, 2.0, 2.0]
    """
    if len(outputs) > 1:
        with contextlib.suppress(RuntimeError):  # a user's task may depend on values
            return torch.func.vmap(function)(outputs)
    results = [function(output) for output in outputs]
    if isinstance(results[0], Tensor):
        return torch.stack(results)
    return {name: torch.stack([result[name] for result in results]) for name in results[0]}


def log_likelihoods(task: Task, outputs: Tensor, target: Any, *, single: bool) -> Tensor:  # (n,)
    """Log-likelihoods of a batch for outputs (n, B, ...), float64; `single`: n is 1."""
    if single:
        nll = task.items_nll(outputs[0], target)[None]
    else:
        nll = nll_per_item(task, outputs, target)
    return -nll.sum(1, dtype=torch.float64)


class LogLikelihoodSums:
    """A `Sink` of the log-likelihood of each point of the last chunk, (n,) float64.

    `single`: points come one at a time, and are computed as the surface itself computes them.
    """

    holds_examples = False
    ordered = False

    def __init__(self, task: Task) -> None:
        self.task = task
        self.single = False
        self.values = torch.zeros(0, dtype=torch.float64)

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        values = log_likelihoods(self.task, outputs, target, single=self.single)
        self.values = values if index == 0 else self.values + values

    def end(self, first: int, n: int) -> None:
        pass
