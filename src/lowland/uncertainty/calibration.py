"""Temperature scaling: probabilities calibrated by one number."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from torch import Tensor

from lowland import checks
from lowland.core import Task
from lowland.errors import DataError
from lowland.records import Predictive
from lowland.scoring.labels import (
    counted_items,
    is_multilabel,
    labelled_items,
    prediction_task,
)
from lowland.scoring.log_probs import LOG_ZERO, log_probs_of, needs_log_probs
from lowland.scoring.metric_sums import labelled_fields
from lowland.warn import warn

_LIMITS = (1e-6, 1e6)  # of a temperature
_BISECTIONS = 60  # of the interval of log T, down to the last digit of float64


def fit_temperature(pred: Predictive, *, task: Task | None = None) -> float:
    r"""The temperature T > 0 that minimises the NLL of \(p^{1/T} / \sum p^{1/T}\).

    Fit it on validation data, never on test data: `fit_temperature(ll.predict(..., validation))`.
    For a model average, T scales the average. T > 1 softens. Guo et al. 2017.

    Args:
        pred: with probabilities and targets.
        task: the task of the prediction; None: the one that the prediction carries.

    T lies between 1e-6 and 1e6; a warning is raised where the NLL still falls at one of these.
    Where every example is right, the NLL falls without end as T goes to 0, which means nothing for
    other examples: T is then 1, with a warning.

    Raises:
        DataError: a prediction without probabilities or targets.

    >>> import torch
    >>> probs = torch.tensor([[0.99, 0.01], [0.99, 0.01], [0.99, 0.01], [0.01, 0.99]])
    >>> labels = torch.tensor([0, 0, 0, 0])  # right three times in four, with 99% confidence
    >>> pred = Predictive("classification", 1, probs=probs, targets=labels)
    >>> round(fit_temperature(pred), 2)  # log 99 / log 3
    4.18
    """
    probs, labels = labelled_items(pred, task)
    if bool((probs.argmax(1) == labels).all()):
        warn(
            f"all {len(labels)} validation examples are right, and no temperature fits them best: "
            "it stays 1; give more examples.",
        )
        return 1.0
    zeros = int((probs.gather(1, labels[:, None]) == 0).sum()) if pred.log_probs is None else 0
    if zeros:
        warn(
            f"{zeros} of {len(labels)} labels have a probability of 0, and the prediction does not "
            "hold logarithms: the temperature may be far too low; predict again.",
        )
    log_probs, labels = _labelled_log_probs(pred, prediction_task(pred, task))
    label_log_probs = log_probs.gather(1, labels[:, None])[:, 0]

    def slope(log_t: float) -> float:
        """The derivative of the NLL by 1/T, in which it is convex: it grows with 1/T."""
        expected = (log_probs / math.exp(log_t)).softmax(1).mul_(log_probs).sum(1)
        return float((expected - label_log_probs).mean())

    low, high = map(math.log, _LIMITS)
    for log_t, still_falls in ((high, slope(high) >= 0), (low, slope(low) <= 0)):
        if still_falls:
            warn(
                f"no temperature fits best: the NLL still falls at T = {math.exp(log_t):g}, where "
                "the search ends; check the accuracy on these examples before you use it.",
            )
            return math.exp(log_t)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return math.exp((low + high) / 2)


def temper(pred: Predictive, temperature: float, *, task: Task | None = None) -> Predictive:
    r"""Temperature scaling, \(p^{1/T} / \sum p^{1/T}\): the prediction with new metrics.

    It uses the logarithms that `Predictive.log_probs` and `target_log_prob` hold, so that
    probabilities which are 0 in float32 are scaled, too. T = 1 returns the prediction unchanged.

    Args:
        pred: with probabilities.
        temperature: T, as `fit_temperature` returned it for validation data.
        task: the task of the prediction; None: the one that the prediction carries.

    Raises:
        DataError: a prediction without probabilities. ConfigError: T <= 0.

    >>> import torch
    >>> pred = Predictive("classification", 1, probs=torch.tensor([[0.8, 0.2]]))
    >>> temper(pred, 0.5).probs
    tensor([[0.9412, 0.0588]])
    """
    task = prediction_task(pred, task)
    if pred.probs is None:
        raise DataError("the prediction has no probabilities: predict with keep='probs'.")
    temperature = checks.number("temperature", temperature, above=0)
    if temperature == 1 and (pred.targets is None or pred.target_log_prob is not None):
        return pred
    log_probs = (log_probs_of(pred, task) / temperature).log_softmax(1)
    probs = log_probs.exp()
    probs = (probs if log_probs.shape == pred.probs.shape else probs[:, 1]).to(pred.probs.dtype)
    # these need the probabilities of each sample, which the average no longer has
    names = ("nll_by_samples", "error_by_samples", "entropy", "mutual_information")
    fields: dict[str, Any] = {"probs": probs, "task": task.to_dict(), **dict.fromkeys(names)}
    fields["log_probs"] = log_probs.float() if needs_log_probs(task, probs) else None
    if pred.targets is not None:
        log_probs, labels = _labelled_log_probs(pred, task)
        log_probs = (log_probs / temperature).log_softmax(1)
        target_log_prob = log_probs.gather(1, labels[:, None])[:, 0]
        if is_multilabel(task, pred.probs, pred.targets):
            target_log_prob = target_log_prob.reshape(len(pred.targets), -1).sum(1)
        fields["target_log_prob"] = target_log_prob
        fields |= labelled_fields(task, {"probs": probs}, target_log_prob, pred.targets)
    return replace(pred, **fields)


def _labelled_log_probs(pred: Predictive, task: Task) -> tuple[Tensor, Tensor]:
    """Logarithms of probabilities (M, C) and labels (M,) of the items that count; that of the
    label is the exact one that the record holds."""
    assert pred.probs is not None
    assert pred.targets is not None
    log_probs = log_probs_of(pred, task)
    if is_multilabel(task, pred.probs, pred.targets):  # the record has one for all labels at once
        return log_probs.movedim(1, -1).reshape(-1, 2), pred.targets.long().reshape(-1)
    log_probs, labels = counted_items(task, log_probs, pred.targets)
    if pred.target_log_prob is not None:
        exact = pred.target_log_prob.double().clamp_min(LOG_ZERO)
        log_probs = log_probs.scatter(1, labels[:, None], exact[:, None])
    return log_probs, labels
