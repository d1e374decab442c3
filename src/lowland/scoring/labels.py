"""The labelled items of a prediction that count, by the task that the prediction carries."""

from __future__ import annotations

import torch
from torch import Tensor

from lowland.core import Classification, Task
from lowland.core.task import require_labels
from lowland.errors import ConfigError, DataError
from lowland.records import Predictive

ADVICE = (
    "the task knows which items do not count: pass task=, such as Classification(ignore_index=...)"
)


def labelled_items(pred: Predictive, task: Task | None = None) -> tuple[Tensor, Tensor]:
    """Probabilities (M, C) and labels (M,) of the items of a prediction that count.

    Each of an example's independent labels is an item with two classes.
    """
    if pred.probs is None or pred.targets is None:
        raise DataError(
            "the prediction needs probabilities and targets: predict labelled examples with "
            "keep='probs'."
        )
    probs, labels = counted_items(prediction_task(pred, task), pred.probs, pred.targets)
    return split_labels(probs, labels) if labels.ndim > 1 else (probs, labels)


def counted_items(task: Task, probs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (M, C) and labels (M,) of the items that count; independent labels, and their
    probabilities, are (M, L)."""
    if is_multilabel(task, probs, target):
        return probs, target.long()
    labels = target.reshape(-1).long()
    probs = probs.movedim(1, -1).reshape(-1, probs.shape[1])
    mask = partial_mask(task.valid(target))
    probs, labels = (probs, labels) if mask is None else (probs[mask], labels[mask])
    require_labels(labels, probs.shape[1], advice=ADVICE)
    return probs, labels


def split_labels(probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:  # (M, L) each
    """Independent labels as items with two classes, (M L, 2) and (M L,)."""
    return binary_probs(probs).movedim(1, -1).reshape(-1, 2), labels.reshape(-1)


def binary_probs(probs: Tensor) -> Tensor:  # (N, L, ...) -> (N, 2, L, ...)
    """Probabilities of no and yes, for each independent label.

    >>> binary_probs(torch.tensor([[0.25, 1.0]])).tolist()
    [[[0.75, 0.0], [0.25, 1.0]]]
    """
    return torch.stack([1 - probs, probs], 1)


def prediction_task(pred: Predictive, task: Task | None = None) -> Task:
    """The task of a prediction, in the form that its labels had; `task` replaces it.

    Integer targets of several labels do not show that these are independent, and examples without
    targets show nothing: the prediction's form is used.

    Raises:
        ConfigError: a prediction without a task, or with one that cannot be made again.
    """
    if task is None:
        if pred.task is None:
            raise ConfigError(f"the {pred.kind} prediction carries no task: pass task=.")
        return Task.from_dict(pred.task)
    if isinstance(task, Classification) and task.form is None and pred.form is not None:
        return task.replace(form=pred.form)
    return task


def is_multilabel(task: Task, probs: Tensor, target: Tensor) -> bool:
    """Whether the columns of `probs` are independent labels."""
    if not isinstance(task, Classification):
        return False
    if task.form is not None:
        return task.form == "multilabel"
    return target.is_floating_point() and target.shape == probs.shape


def partial_mask(mask: Tensor | None) -> Tensor | None:
    """The mask of the items that count; None where all count, so that nothing is indexed.

    >>> partial_mask(torch.tensor([True, False])), partial_mask(torch.tensor([True, True]))
    (tensor([ True, False]), None)
    """
    return None if mask is None or bool(mask.all()) else mask
