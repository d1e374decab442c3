"""The linear pool: one model average of several predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lowland.core import Regression, Task
from lowland.errors import ConfigError, DataError
from lowland.records import Predictive
from lowland.scoring.labels import prediction_task
from lowland.scoring.log_probs import pool_log_probs
from lowland.scoring.metric_sums import labelled_fields, mixture_moments


def pool(preds: Sequence[Predictive], *, task: Task | None = None) -> Predictive:
    r"""The linear pool \(p = \frac1R \sum_r p_r\) of predictions of the same examples (Stone 1961).

    A deep ensemble of R single networks, or MultiSWAG of R SWAGs: the prediction of their mixture
    with the same draws. Means of probabilities, logsumexp of likelihoods; for regression
    the total variance of the mixture.

    Args:
        preds: with keep="probs", for the same examples in the same order.
        task: the task of the predictions; None: the one that they carry.

    Raises:
        ConfigError: no predictions. DataError: predictions of different examples or tasks.

    >>> probs = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]])
    >>> preds = [Predictive("classification", 1, probs=p) for p in probs]
    >>> pool(preds).probs
    tensor([[0.7000, 0.3000]])
    """
    if not preds:
        raise ConfigError("expected at least one prediction.")
    first = preds[0]
    for other in preds:
        same = _task_key(other) == _task_key(first) and _shape(other) == _shape(first)
        if not same or not _equal(other.targets, first.targets):
            raise DataError(
                "the predictions are of different examples or tasks; predict the same loader with "
                "each."
            )
    log_prob = _log_mean([p.target_log_prob for p in preds])
    fields: dict[str, Any] = {"targets": first.targets, "target_log_prob": log_prob}
    task = prediction_task(first, task)
    fields["task"] = task.to_dict()
    if first.probs is not None:
        averages = {"probs": _mean([p.probs for p in preds])}
        fields |= averages | _information(preds, averages["probs"], task)
        fields["log_probs"] = pool_log_probs(preds, task)
    elif first.mean is not None:
        if isinstance(task, Regression):
            task = task.in_own_units()  # like the predictions
        means, variances = _stack([p.mean for p in preds]), _stack([p.variance for p in preds])
        mean, variance = mixture_moments(means, variances)
        averages = {"mean": mean, "variance": variance}
        fields |= averages
    else:
        raise DataError("the predictions hold no probabilities: predict with keep='probs'.")
    if log_prob is not None and first.targets is not None:
        fields |= labelled_fields(task, averages, log_prob, first.targets)
        values = fields["metric_values"]
        fields["metric_values"] = {n: v for n, v in values.items() if not n.endswith("_normalised")}
    return Predictive(first.kind, sum(p.samples for p in preds), **fields)


def _information(preds: Sequence[Predictive], probs: Tensor, task: Task) -> dict[str, Tensor]:
    """Entropy of the pool, and its excess over the mean entropy of single networks."""
    expected = [
        p.entropy - p.mutual_information
        for p in preds
        if p.entropy is not None and p.mutual_information is not None
    ]
    if len(expected) < len(preds):
        return {}
    entropy = task.entropy(probs)
    information = (entropy - _mean(expected)).clamp_min(0)  # negative by rounding
    return {"entropy": entropy, "mutual_information": information}


def _mean(parts: Sequence[Tensor | None]) -> Tensor:
    return _stack(parts).mean(0)


def _stack(parts: Sequence[Tensor | None]) -> Tensor:
    tensors = [part for part in parts if part is not None]
    if len(tensors) < len(parts):
        raise DataError("the predictions hold different fields; predict all with keep='probs'.")
    return torch.stack(tensors)


def _log_mean(parts: Sequence[Tensor | None]) -> Tensor | None:
    tensors = [part for part in parts if part is not None]
    if len(tensors) < len(parts):
        return None
    return torch.stack(tensors).logsumexp(0) - math.log(len(tensors))


def _task_key(pred: Predictive) -> str:
    """Equal for tasks whose labels mean the same; those of a regression always do, since its
    predictions are in the target's own units."""
    return pred.kind if pred.kind == "regression" else repr(pred.task)


def _shape(pred: Predictive) -> tuple[int, ...] | None:
    values = pred.mean if pred.probs is None else pred.probs
    return None if values is None else tuple(values.shape)


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))
