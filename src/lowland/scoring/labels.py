"""Which items of a prediction count, by the task that it carries."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from lowland.core import Classification, Task
from lowland.errors import ConfigError, DataError
from lowland.records import Predictive
from lowland.scoring.error_curve import some


def categorical(task: Task, probs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (M, C) and labels (M,); each label of a multilabel row becomes a pair."""
    rows, labels = items(task, probs, target)
    return by_label(rows, labels) if labels.ndim > 1 else (rows, labels)


def pairs(probs: Tensor) -> Tensor:  # (N, L) -> (N, 2, L)
    """Probabilities of no and yes, for independent labels."""
    return torch.stack([1 - probs, probs], 1)


def by_label(probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return pairs(probs).movedim(1, -1).reshape(-1, 2), labels.reshape(-1)


def labelled_items(pred: Predictive, task: Task | None = None) -> tuple[Tensor, Tensor]:
    """Probabilities (M, C) and labels (M,) of the items of a prediction that count."""
    if pred.probs is None or pred.targets is None:
        raise DataError(
            "the prediction needs probabilities and targets: predict labelled rows with "
            "keep='probs'."
        )
    return categorical(task_of(pred, task), pred.probs, pred.targets)


def task_of(pred: Predictive, task: Task | None = None) -> Task:
    """The task that a prediction was made with, in the form that its labels showed then: integer
    targets of several labels, or no targets at all, would not tell.

    Raises:
        ConfigError: a prediction that carries none, or one that cannot be made again.
    """
    if task is None:
        if pred.task is None:
            raise ConfigError(f"the {pred.kind} prediction carries no task: pass task=.")
        return Task.from_dict(pred.task)
    if isinstance(task, Classification) and task.form is None and pred.form is not None:
        task = copy.copy(task)
        task.form = pred.form
    return task


def is_multilabel(task: Task, probs: Tensor, target: Tensor) -> bool:
    """Whether the columns of `probs` are independent labels."""
    if not isinstance(task, Classification):
        return False
    if task.form is not None:
        return task.form == "multilabel"
    return target.is_floating_point() and target.shape == probs.shape


def items(task: Task, probs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (items, C) and labels (items,), or (items, C) for multilabel, that count."""
    if is_multilabel(task, probs, target):
        return probs, target.long()
    labels = target.reshape(-1).long()
    probs = probs.movedim(1, -1).reshape(-1, probs.shape[1])
    mask = some(task.valid(target))
    probs, labels = (probs, labels) if mask is None else (probs[mask], labels[mask])
    require_labels(labels, probs.shape[1])
    return probs, labels


def require_labels(labels: Tensor, classes: int) -> None:
    """Raises `DataError` for labels that are no class: they would count as wrong."""
    bad = labels[(labels < 0) | (labels >= classes)]
    if bad.numel():
        raise DataError(
            f"labels out of range: expected 0 to {classes - 1}, got {int(bad[0])}; items that do "
            "not count are known to the task: pass task=, such as Classification(ignore_index=...)."
        )
