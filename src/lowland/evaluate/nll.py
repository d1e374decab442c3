"""Likelihoods of the outputs of many points, and the form of their task."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lowland.core import Classification, Task
from lowland.core.task import at_least_float32

_NARROW = 32  # classes up to which rows go last


def resolve_task(
    task: Task, outputs: Tensor, target: Any, example: Callable[[], Any] | None = None
) -> Task:
    """The task with the form that the targets show: probabilities alone cannot tell labels that
    exclude one another from labels that do not. Rows without targets go by an example that has
    them."""
    if not isinstance(task, Classification) or task.form is not None:
        return task
    form = None
    if target is not None:
        form = task.form_of(outputs[0], target)
    elif example is not None and outputs.ndim >= 3 and outputs.shape[2] > 1:
        shown = example().target
        form = _form_by(task, outputs[0], shown) if isinstance(shown, Tensor) else "multiclass"
    task = copy.copy(task)
    task.form = form
    return task


def _form_by(task: Classification, output: Tensor, shown: Tensor) -> str:
    """The form of an unlabelled batch's outputs (B, ...) by another batch's targets."""
    each = output.shape[1:]
    if shown.is_floating_point() and shown.shape[1:] == each:
        return "multilabel"
    if each[1:] != shown.shape[1:] == each[:-1]:
        # only the last axis can be that of the classes: refused, as labelled rows are
        return task.form_of(output, shown[:1].expand(len(output), *shown.shape[1:]))
    return "multiclass"  # or images of another size


def nll_per_item(task: Task, outputs: Tensor, target: Any) -> Tensor:
    """Negative log-likelihoods (n, items) of outputs (n, B, ...)."""
    plain = type(task) is Classification and task.form == "multiclass" and outputs.ndim == 3
    if plain and outputs.shape[2] <= _NARROW and not outputs.is_cuda:
        return _narrow(task, outputs, target)  # type: ignore[arg-type]
    found: Tensor = vmap_points(lambda output: task.items_nll(output, target), outputs)
    return found


def _narrow(task: Classification, outputs: Tensor, target: Tensor) -> Tensor:
    """The same for few classes (n, B, C), of all points at once.

    torch's softmax on a CPU goes along the classes value by value; with rows last it goes along
    these, ten times as fast for ten classes.
    """
    task.form_of(outputs[0], target)  # the shapes are those of the task
    labels = target.long().expand(len(outputs), -1)
    rows_last = at_least_float32(outputs).mT.contiguous()  # (n, C, B)
    found: Tensor = F.cross_entropy(
        rows_last, labels, ignore_index=task.ignore_index, reduction="none"
    )
    return found


def vmap_points(function: Callable[[Tensor], Any], outputs: Tensor) -> Any:
    """A tensor, or tensors by name, for each of n outputs: stacked, (n, ...)."""
    if len(outputs) > 1:
        with contextlib.suppress(RuntimeError):  # a task of the user's may look at values
            return torch.func.vmap(function)(outputs)
    each = [function(output) for output in outputs]
    if isinstance(each[0], Tensor):
        return torch.stack(each)
    return {name: torch.stack([one[name] for one in each]) for name in each[0]}


def log_likelihoods(task: Task, outputs: Tensor, target: Any, *, alone: bool) -> Tensor:  # (n,)
    """Log-likelihoods of a batch for outputs (n, B, ...), float64; `alone`: n is 1."""
    nll = task.items_nll(outputs[0], target)[None] if alone else nll_per_item(task, outputs, target)
    return -nll.sum(1, dtype=torch.float64)


class LogLikelihoodSums:
    """A `Sink` of the log-likelihood of each point of the last chunk, (n,) float64.

    `alone`: points come one at a time, and are computed as the surface itself computes them.
    """

    holds_examples = False
    ordered = False

    def __init__(self, task: Task) -> None:
        self.task = task
        self.alone = False
        self.values = torch.zeros(0, dtype=torch.float64)

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        part = log_likelihoods(self.task, outputs, target, alone=self.alone)
        self.values = part if index == 0 else self.values + part

    def end(self, first: int, n: int) -> None:
        pass
