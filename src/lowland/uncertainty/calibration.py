"""Whether probabilities mean what they say, and making them do so with one number."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from torch import Tensor

from lowland import checks
from lowland.core import Task
from lowland.errors import DataError
from lowland.records import Predictive
from lowland.scoring.labels import is_multilabel, items, labelled_items, task_of
from lowland.scoring.log_probs import LEAST, log_probs_of, needs_log_probs
from lowland.scoring.metric_sums import labelled_fields
from lowland.warn import warn

_LIMITS = (1e-6, 1e6)  # of a temperature
_HALVINGS = 60  # of their logarithms' distance, which leave the digits of float64


def fit_temperature(pred: Predictive, *, task: Task | None = None) -> float:
    r"""The temperature T > 0 that minimises the NLL of \(p^{1/T} / \sum p^{1/T}\).

    Fit it on validation data, never on test: `fit_temperature(ll.predict(..., validation))`. For
    a model average it is the average that is tempered. T > 1 softens. Guo et al. 2017.

    Args:
        pred: with probabilities and targets. task: as it was predicted with; None: the one that
            the prediction carries.

    T lies between 1e-6 and 1e6; a warning says so where the NLL still falls at one of these. Where
    every row is right, the NLL falls without end as T goes to 0, which says nothing about other
    rows: T is then 1, with a warning.

    Raises:
        DataError: a predictive without probabilities or targets.

    >>> import torch
    >>> probs = torch.tensor([[0.99, 0.01], [0.99, 0.01], [0.99, 0.01], [0.01, 0.99]])
    >>> labels = torch.tensor([0, 0, 0, 0])  # right three times in four, sure at 99%
    >>> pred = Predictive("classification", 1, probs=probs, targets=labels)
    >>> round(fit_temperature(pred), 2)  # log 99 / log 3
    4.18
    """
    probs, labels = labelled_items(pred, task)
    if bool((probs.argmax(1) == labels).all()):
        warn(
            f"all {len(labels)} validation rows are right, and no temperature fits them best: it "
            "stays 1; give more rows.",
        )
        return 1.0
    zeros = int((probs.gather(1, labels[:, None]) == 0).sum()) if pred.log_probs is None else 0
    if zeros:
        warn(
            f"{zeros} of {len(labels)} labels have a probability of 0, and the prediction does not "
            "hold logarithms: the temperature may be far too low; predict again.",
        )
    log_probs, labels = _log_items(pred, task_of(pred, task))
    target_logs = log_probs.gather(1, labels[:, None])[:, 0]

    def slope(log_t: float) -> float:
        """Of the NLL in 1/T, in which it is convex: it grows with 1/T."""
        expected = (log_probs / math.exp(log_t)).softmax(1).mul_(log_probs).sum(1)
        return float((expected - target_logs).mean())

    low, high = map(math.log, _LIMITS)
    for log_t, falls in ((high, slope(high) >= 0), (low, slope(low) <= 0)):
        if falls:
            warn(
                f"no temperature fits best: the NLL still falls at T = {math.exp(log_t):g}, where "
                "the search ends; look at the accuracy on these rows before you temper by it.",
            )
            return math.exp(log_t)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return math.exp((low + high) / 2)


def temper(pred: Predictive, temperature: float, *, task: Task | None = None) -> Predictive:
    """The predictive with its probabilities raised to 1/T and normalised, and its metrics anew.

    Logarithms are those that `Predictive.log_probs` and `target_log_prob` hold, so that
    probabilities which are 0 in float32 are tempered, too. T = 1 gives the predictive back.

    Args:
        pred: with probabilities. temperature: T, as `fit_temperature` gave it on validation data.
        task: as it was predicted with; None: the one that the prediction carries.

    Raises:
        DataError: a predictive without probabilities, T <= 0.

    >>> import torch
    >>> pred = Predictive("classification", 1, probs=torch.tensor([[0.8, 0.2]]))
    >>> temper(pred, 0.5).probs
    tensor([[0.9412, 0.0588]])
    """
    task = task_of(pred, task)
    if pred.probs is None:
        raise DataError("the predictive has no probabilities: predict with keep='probs'.")
    temperature = checks.number("temperature", temperature, above=0)
    if temperature == 1 and (pred.targets is None or pred.target_log_prob is not None):
        return pred
    log_probs = (log_probs_of(pred, task) / temperature).log_softmax(1)
    probs = log_probs.exp()
    probs = (probs if log_probs.shape == pred.probs.shape else probs[:, 1]).to(pred.probs.dtype)
    # per-sample probabilities are gone, so these cannot be had for the tempered average
    names = ("nll_by_samples", "error_by_samples", "entropy", "mutual_information")
    changed: dict[str, Any] = {"probs": probs, "task": task.to_dict(), **dict.fromkeys(names)}
    changed["log_probs"] = log_probs.float() if needs_log_probs(task, probs) else None
    if pred.targets is not None:
        logs, labels = _log_items(pred, task)
        each = (logs / temperature).log_softmax(1).gather(1, labels[:, None])[:, 0]
        if is_multilabel(task, pred.probs, pred.targets):
            each = each.reshape(len(pred.targets), -1).sum(1)
        changed["target_log_prob"] = each
        changed |= labelled_fields(task, {"probs": probs}, each, pred.targets)
    return replace(pred, **changed)


def _log_items(pred: Predictive, task: Task) -> tuple[Tensor, Tensor]:
    """Logarithms of probabilities (M, C) and labels (M,) of the items that count; the target's is
    the exact one that the record holds."""
    assert pred.probs is not None
    assert pred.targets is not None
    logs = log_probs_of(pred, task)
    if is_multilabel(task, pred.probs, pred.targets):  # an item of the record has many labels
        return logs.movedim(1, -1).reshape(-1, 2), pred.targets.long().reshape(-1)
    rows, labels = items(task, logs, pred.targets)
    if pred.target_log_prob is not None:
        exact = pred.target_log_prob.double().clamp_min(LEAST)
        rows = rows.scatter(1, labels[:, None], exact[:, None])
    return rows, labels
