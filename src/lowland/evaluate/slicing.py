"""A slice of the examples of a prediction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from lowland.core import Task
from lowland.errors import DataError
from lowland.records import Predictive
from lowland.scoring.labels import prediction_task
from lowland.scoring.metric_sums import labelled_fields

_BY_EXAMPLE = (
    "probs", "mean", "variance", "entropy", "mutual_information", "targets", "log_probs",
)  # fmt: skip


def slice_examples(
    pred: Predictive, start: int, stop: int, *, task: Task | None = None
) -> Predictive:
    """Examples start to stop of a prediction, with their own metrics where it is a classifier's.

    Args:
        task: the task of the prediction; None: the one that the prediction carries.

    Raises:
        DataError: a prediction without probabilities and without means.

    >>> import torch
    >>> probs = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    >>> pred = Predictive("classification", 1, probs=probs, entropy=torch.tensor([0.3, 0.5]))
    >>> slice_examples(pred, 1, 2).entropy
    tensor([0.5000])
    """
    if pred.probs is None and pred.mean is None:
        raise DataError("the prediction holds no examples: predict with keep='probs'.")
    task = prediction_task(pred, task)
    part = slice(start, stop)
    absent = ("nll_by_samples", "error_by_samples", "reliability", "target_log_prob")
    fields: dict[str, Any] = {"task": task.to_dict(), "metric_values": {}, **dict.fromkeys(absent)}
    for name in _BY_EXAMPLE:
        values = getattr(pred, name)
        fields[name] = None if values is None else values[part]
    if pred.probs is not None and pred.targets is not None and pred.target_log_prob is not None:
        target = fields["targets"]
        per_example = len(pred.target_log_prob) // max(len(pred.targets), 1)  # where all count
        first, last = (_count_items(task, pred.targets[:n], per_example) for n in (start, stop))
        log_prob = pred.target_log_prob[first:last]
        fields["target_log_prob"] = log_prob
        fields |= labelled_fields(task, {"probs": fields["probs"]}, log_prob, target)
    return replace(pred, **fields)


def _count_items(task: Task, target: Tensor, per_example: int) -> int:
    """How many items of these examples count."""
    mask = task.valid(target)
    return per_example * len(target) if mask is None else int(mask.sum())
