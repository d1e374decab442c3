"""Some rows of a prediction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from lowland.core import Task
from lowland.errors import DataError
from lowland.records import Predictive
from lowland.scoring.labels import task_of
from lowland.scoring.metric_sums import labelled_fields


def slice_examples(
    pred: Predictive, start: int, stop: int, *, task: Task | None = None
) -> Predictive:
    """Rows start to stop of a classifier's prediction, with metrics of their own.

    Args:
        task: as it was predicted with; None: the one that the prediction carries.

    >>> import torch
    >>> probs = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    >>> pred = Predictive("classification", 1, probs=probs, entropy=torch.tensor([0.3, 0.5]))
    >>> slice_examples(pred, 1, 2).entropy
    tensor([0.5000])
    """
    if pred.probs is None:
        raise DataError("the prediction holds no probabilities: predict with keep='probs'.")
    task = task_of(pred, task)
    rows = slice(start, stop)
    found: dict[str, Any] = {"probs": pred.probs[rows], "metric_values": {}, "task": task.to_dict()}
    found |= {"nll_by_samples": None, "error_by_samples": None}
    for name in ("entropy", "mutual_information", "targets", "log_probs"):
        values = getattr(pred, name)
        found[name] = None if values is None else values[rows]
    found |= {"reliability": None, "target_log_prob": None}
    if pred.targets is not None and pred.target_log_prob is not None:
        target = found["targets"]
        each = len(pred.target_log_prob) // max(len(pred.targets), 1)  # where all items count
        before, mine = (_items(task, pred.targets[:n], each) for n in (start, stop))
        log_prob = pred.target_log_prob[before:mine]
        found["target_log_prob"] = log_prob
        found |= labelled_fields(task, {"probs": found["probs"]}, log_prob, target)
    return replace(pred, **found)


def _items(task: Task, target: Tensor, each: int) -> int:
    """How many items of these rows count."""
    mask = task.valid(target)
    return each * len(target) if mask is None else int(mask.sum())
