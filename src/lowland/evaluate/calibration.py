"""Whether probabilities mean what they say, and making them do so with one number."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lowland.core import Classification, Task
from lowland.errors import DataError
from lowland.evaluate.items import is_multilabel, items, labelled_items, pairs, task_of
from lowland.evaluate.metrics import labelled_fields
from lowland.records import Predictive

_GOLDEN = (5**0.5 - 1) / 2


def fit_temperature(pred: Predictive, *, task: Task | None = None) -> float:
    r"""The temperature T > 0 that minimises the NLL of \(p^{1/T} / \sum p^{1/T}\).

    Fit it on validation data, never on test: `fit_temperature(ll.predict(..., validation))`. For
    a model average it is the average that is tempered. T > 1 softens. Guo et al. 2017.

    Args:
        pred: with probabilities and targets. task: as it was predicted with; None: the one that
            the prediction carries.

    Where every row is right, the NLL falls without end as T goes to 0, which says nothing about
    other rows: T is then 1, with a warning.

    Raises:
        DataError: a predictive without probabilities or targets.

    >>> probs = torch.tensor([[0.99, 0.01], [0.99, 0.01], [0.99, 0.01], [0.01, 0.99]])
    >>> labels = torch.tensor([0, 0, 0, 0])  # right three times in four, sure at 99%
    >>> pred = Predictive("classification", 1, probs=probs, targets=labels)
    >>> round(fit_temperature(pred), 2)  # log 99 / log 3
    4.18
    """
    probs, labels = labelled_items(pred, task)
    log_probs = _log(probs)
    if bool((log_probs.argmax(1) == labels).all()):
        warnings.warn(
            f"all {len(labels)} validation rows are right, and no temperature fits them best: it "
            "stays 1; give more rows.",
            stacklevel=2,
        )
        return 1.0

    def nll(log_t: float) -> float:
        return float(F.cross_entropy(log_probs / math.exp(log_t), labels))

    # convex in 1/T, so unimodal in log T: golden section needs no derivative and cannot diverge
    low, high = -4.0, 4.0
    for _ in range(40):
        width = (high - low) * _GOLDEN
        a, b = high - width, low + width
        low, high = (low, b) if nll(a) < nll(b) else (a, high)
    return math.exp((low + high) / 2)


def temper(pred: Predictive, temperature: float, *, task: Task | None = None) -> Predictive:
    """The predictive with its probabilities raised to 1/T and normalised, and its metrics anew.

    Args:
        pred: with probabilities. temperature: T, as `fit_temperature` gave it on validation data.
        task: as it was predicted with; None: the one that the prediction carries.

    Raises:
        DataError: a predictive without probabilities, T <= 0.

    >>> pred = Predictive("classification", 1, probs=torch.tensor([[0.8, 0.2]]))
    >>> temper(pred, 0.5).probs
    tensor([[0.9412, 0.0588]])
    """
    task = task_of(pred, task)
    if pred.probs is None:
        raise DataError("the predictive has no probabilities: predict with keep='probs'.")
    if not 0 < temperature < math.inf:
        raise DataError(f"temperature: expected a positive number, got {temperature}.")
    multilabel = pred.targets is not None and is_multilabel(task, pred.probs, pred.targets)
    if multilabel or (isinstance(task, Classification) and task.form == "multilabel"):
        probs = (_log(pairs(pred.probs)) / temperature).softmax(1)[:, 1]
    else:
        probs = (_log(pred.probs) / temperature).softmax(1)
    probs = probs.to(pred.probs.dtype)
    # per-sample probabilities are gone, so these cannot be had for the tempered average
    names = ("nll_by_samples", "error_by_samples", "entropy", "mutual_information")
    changed: dict[str, Any] = {"probs": probs, "task": task.to_dict(), **dict.fromkeys(names)}
    if pred.targets is not None:
        _, labels = items(task, probs, pred.targets)
        if labels.ndim == 2:
            each = (_log(pairs(pred.probs)) / temperature).log_softmax(1)  # (N, 2, C)
            log_prob = each.gather(1, labels[:, None])[:, 0].sum(1)
        else:
            # of what was before: tempered probabilities may be too small for their precision
            before, _ = items(task, pred.probs, pred.targets)
            logs = (_log(before) / temperature).log_softmax(1)
            log_prob = logs.gather(1, labels[:, None])[:, 0]
        changed["target_log_prob"] = log_prob
        changed |= labelled_fields(task, {"probs": probs}, log_prob, pred.targets)
    return replace(pred, **changed)


def _log(probs: Tensor) -> Tensor:
    return probs.double().clamp_min(torch.finfo(torch.float32).tiny).log()
