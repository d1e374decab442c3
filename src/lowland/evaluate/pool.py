"""Model averages of several runs made one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lowland.core import Regression, Task
from lowland.errors import ConfigError, DataError
from lowland.records import Predictive
from lowland.scoring.labels import task_of
from lowland.scoring.log_probs import pool_log_probs
from lowland.scoring.metric_sums import labelled_fields, mixture_moments


def pool(preds: Sequence[Predictive], *, task: Task | None = None) -> Predictive:
    r"""The linear pool \(p = \frac1R \sum_r p_r\) of predictions of the same rows (Stone 1961).

    A deep ensemble from R single networks, MultiSWAG from R SWAGs: what `predict` gives for their
    mixture with the same draws. Means of probabilities, logsumexp of likelihoods; for regression
    the total variance of the mixture.

    Args:
        preds: made with keep="probs" of the same rows in the same order.
        task: as they were predicted with; None: the one that they carry.

    Raises:
        DataError: predictions of other rows.

    >>> one, other = (torch.tensor([[p, 1 - p]]) for p in (0.9, 0.5))
    >>> preds = [Predictive("classification", 1, probs=p) for p in (one, other)]
    >>> pool(preds).probs
    tensor([[0.7000, 0.3000]])
    """
    if not preds:
        raise ConfigError("expected at least one prediction.")
    first = preds[0]
    for other in preds:
        same = _task(other) == _task(first) and _rows(other) == _rows(first)
        if not same or not _same(other.targets, first.targets):
            raise DataError(
                "the predictions are of different rows or tasks; predict the same loader with each."
            )
    log_prob = _log_mean([p.target_log_prob for p in preds])
    found: dict[str, Any] = {"targets": first.targets, "target_log_prob": log_prob}
    task = task_of(first, task)
    found["task"] = task.to_dict()
    if first.probs is not None:
        averages = {"probs": _mean([p.probs for p in preds])}
        found |= averages | _information(preds, averages["probs"], task)
        found["log_probs"] = pool_log_probs(preds, task)
    elif first.mean is not None:
        if isinstance(task, Regression):
            task = task.in_own_units()  # as the predictions are
        means, variances = _stack([p.mean for p in preds]), _stack([p.variance for p in preds])
        mean, variance = mixture_moments(means, variances)
        averages = {"mean": mean, "variance": variance}
        found |= averages
    else:
        raise DataError("the predictions hold no probabilities: predict with keep='probs'.")
    if log_prob is not None and first.targets is not None:
        found |= labelled_fields(task, averages, log_prob, first.targets)
        every = found["metric_values"]
        found["metric_values"] = {n: v for n, v in every.items() if not n.endswith("_normalised")}
    return Predictive(first.kind, sum(p.samples for p in preds), **found)


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
    held = [part for part in parts if part is not None]
    if len(held) < len(parts):
        raise DataError("the predictions do not hold the same; predict all with keep='probs'.")
    return torch.stack(held)


def _log_mean(parts: Sequence[Tensor | None]) -> Tensor | None:
    held = [part for part in parts if part is not None]
    if len(held) < len(parts):
        return None
    return torch.stack(held).logsumexp(0) - math.log(len(held))


def _task(pred: Predictive) -> str:
    """What labels mean and which count; a regression's predictions are in the target's own units,
    whatever they were standardised with."""
    return pred.kind if pred.kind == "regression" else repr(pred.task)


def _rows(pred: Predictive) -> tuple[int, ...] | None:
    kept = pred.mean if pred.probs is None else pred.probs
    return None if kept is None else tuple(kept.shape)


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))
