"""Metrics as sums over examples, in float64; `lowland.metrics` declares their names and titles."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lowland.core import LanguageModeling, Regression, Task
from lowland.errors import ConfigError
from lowland.metrics import Metric, metrics
from lowland.records import Reliability
from lowland.scoring.labels import counted_items, split_labels
from lowland.scoring.reliability import ReliabilitySums

_CHUNK = 1 << 20  # probabilities that are widened to float64 at a time
Z95 = 1.959963984540054  # half the width of a central 95% interval, in standard deviations


def labelled_fields(
    task: Task,
    averages: dict[str, Tensor],
    log_prob: Tensor,
    target: Tensor | None,
    sums: ClassificationSums | None = None,
) -> dict[str, Any]:
    """The fields of a `Predictive` that need targets: its metrics, and a classifier's reliability.

    Args:
        averages: means of `task.statistics` over samples, for all examples; the variance of a
            regression is the total variance.
        log_prob: log of the mean likelihood of the items that count.
        target: the targets of all examples; for language models, the next tokens.
        sums: sums over all examples, where batches were added one by one; no targets are needed
            then.
    """
    fields: dict[str, Any] = {}
    values = likelihood_metrics(task, log_prob)
    if sums is None:
        sums = ClassificationSums()
        if "probs" in averages and target is not None:
            sums.add(task, averages["probs"], target)
    if isinstance(task, Regression):
        assert target is not None
        values = _regression_metrics(task, averages, values["nll"], target)
    elif sums.count:
        values |= sums.metrics()
        fields["reliability"] = vars(sums.reliability)
    return fields | {"metric_values": values | task.metrics(averages, target)}


def likelihood_metrics(task: Task, log_prob: Tensor) -> dict[str, float]:
    """The metrics that need no probabilities: NLL, and the perplexity of language models."""
    nll = -log_prob.mean(dtype=torch.float64)
    values = {"nll": float(nll)}
    if isinstance(task, LanguageModeling):
        values["perplexity"] = float(nll.exp())
    return values


class ClassificationSums:
    """Accuracy, ECE and Brier score as float64 sums over examples, which may come in batches.

    >>> from lowland.core import Classification
    >>> sums = ClassificationSums()
    >>> sums.add(Classification(), torch.tensor([[0.75, 0.25]]), torch.tensor([0]))
    >>> sums.metrics()
    {'accuracy': 1.0, 'ece': 0.25, 'brier': 0.125}
    """

    def __init__(self) -> None:
        self.count = 0
        self._bins = ReliabilitySums()
        self._brier = 0.0
        self._registered: dict[Metric, float] = {}

    def add(self, task: Task, probs: Tensor, target: Tensor) -> None:
        """Takes probabilities (B, C, ...) and the targets of the same examples."""
        probs, labels = counted_items(task, probs, target)
        for metric in metrics(task.kind):
            if metric.function is not None:
                total = _example_values(metric, probs, labels).sum(dtype=torch.float64)
                self._registered[metric] = self._registered.get(metric, 0.0) + float(total)
        self.count += len(probs)
        size = max(_CHUNK // max(probs.shape[1], 1), 1)
        for p, y in zip(probs.split(size), labels.split(size), strict=True):
            self._add_chunk(p, y)

    def _add_chunk(self, probs: Tensor, labels: Tensor) -> None:
        if labels.ndim > 1:  # multilabel
            self._brier += float(((probs.double() - labels) ** 2).sum())
            probs, labels = split_labels(probs, labels)
        else:
            # |p - e_y|^2 without the one-hot e_y, which for a vocabulary is as large as p
            label_probs = probs.gather(1, labels[:, None]).double()
            squares = probs.double().square().sum() - 2 * label_probs.sum()
            self._brier += float(squares) + len(probs)
        confidence, predicted = probs.max(1)
        self._bins.add(confidence, predicted == labels)

    def metrics(self) -> dict[str, float]:
        """The metrics of the examples so far."""
        accuracy = self._bins.correct.sum() / self._bins.count.sum()
        count = max(self.count, 1)
        registered = {m.name: total / count for m, total in self._registered.items()}
        return {
            "accuracy": float(accuracy),
            "ece": self.reliability.ece,
            "brier": self._brier / count,
        } | registered

    @property
    def reliability(self) -> Reliability:
        """The record whose ECE `metrics` returns."""
        return self._bins.reliability


def _regression_metrics(
    task: Regression, averages: dict[str, Tensor], nll: float, target: Tensor
) -> dict[str, float]:
    mean, variance = averages["mean"], averages["variance"]
    _, std = task.units(mean)
    target = target.to(mean.dtype)
    squared_error = (target - mean) ** 2
    log_unit = log_scale(task, averages)
    gaussian_nll = 0.5 * ((2 * math.pi * variance).log() + squared_error / variance)
    nll_gaussian = float(gaussian_nll.sum(task.axis(mean.shape)).mean())
    return {
        "rmse": float((squared_error * std**2).mean().sqrt()),
        "nll": nll + log_unit,
        "nll_gaussian": nll_gaussian + log_unit,
        "coverage": float((squared_error <= Z95**2 * variance).double().mean()),
        "rmse_normalised": float(squared_error.mean().sqrt()),
        "nll_normalised": nll,
        "nll_gaussian_normalised": nll_gaussian,
    } | _registered_regression_metrics(task, mean, variance, target)


def _registered_regression_metrics(
    task: Regression, mean: Tensor, variance: Tensor, target: Tensor
) -> dict[str, float]:
    """Registered metrics take moments and targets in the target's units."""
    registered = [metric for metric in metrics(task.kind) if metric.function is not None]
    if not registered:
        return {}
    shift, std = task.units(mean)
    inputs = mean * std + shift, variance * std**2, target * std + shift
    return {
        m.name: float(_example_values(m, *inputs).mean(dtype=torch.float64)) for m in registered
    }


def _example_values(metric: Metric, *inputs: Tensor) -> Tensor:
    """A registered function's value for each example."""
    assert metric.function is not None
    values = metric.function(*inputs)
    if not isinstance(values, Tensor) or values.shape[:1] != inputs[0].shape[:1]:
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ConfigError(
            f"metric {metric.name!r}: its function must give a value for each of {len(inputs[0])} "
            f"examples, got {shape}."
        )
    return values


def log_scale(task: Task, averages: dict[str, Tensor]) -> float:
    """The difference between an item's NLL in the target's units and in normalised ones."""
    return task.log_scale(averages["mean"]) if isinstance(task, Regression) else 0.0


def mixture_moments(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and total variance, (N, D), of mixtures of S components, (S, N, D): E[v] + Var[m].

    The variance of the means is computed from their deviations: E[m^2] - E[m]^2 cancels.

    >>> mixture_moments(torch.tensor([[1e8], [1e8 + 16]]), torch.ones(2, 1))
    (tensor([1.0000e+08]), tensor([65.]))
    """
    return mean.mean(0), variance.mean(0) + mean.var(0, correction=0)


def added_scatter(means: Tensor, total: Tensor | None, count: int) -> Tensor:
    r"""What n further means, (n, ...), add to \(\sum_s (m_s - \bar m)^2\) (Chan et al. 1983).

    Args:
        total: the sum of the `count` means so far, (...); None where there are none.

    >>> first = added_scatter(torch.tensor([1.0, 3.0]), None, 0)
    >>> first + added_scatter(torch.tensor([8.0]), torch.tensor(4.0), 2)  # of 1, 3, 8
    tensor(26.)
    """
    n, mean = len(means), means.mean(0)
    within = (means - mean).square().sum(0)
    if total is None:
        return within
    return within + (mean - total / count).square() * (count * n / (count + n))
