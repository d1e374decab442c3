"""What metrics are: sums over examples, in float64. Their names and titles: `lowland.metrics`."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

import torch
from torch import Tensor

from lowland.core import LanguageModeling, Regression, Task
from lowland.errors import ConfigError
from lowland.metrics import Metric, metrics
from lowland.records import Reliability
from lowland.scoring.labels import by_label, items
from lowland.scoring.reliability import ReliabilitySums

_PIECE = 1 << 20  # probabilities that are widened to float64 at a time
Z95 = 1.959963984540054  # half the width of a central 95% interval, in standard deviations


def labelled_fields(
    task: Task,
    averages: dict[str, Tensor],
    log_prob: Tensor,
    target: Tensor | None,
    sums: ClassificationSums | None = None,
) -> dict[str, Any]:
    """Fields of a `Predictive` that need targets: `metric_values`, a classifier's `reliability`.

    Args:
        averages: means of `task.statistics` over samples, all rows; the variance of a regression is
            the total.
        log_prob: log of the mean likelihood, of the items that count. target: all rows' targets, of
            language models the next tokens.
        sums: of all rows, where they were summed as they came: targets are not needed then.
    """
    fields: dict[str, Any] = {}
    found = of_likelihood(task, log_prob)
    if sums is None:
        sums = ClassificationSums()
        if "probs" in averages and target is not None:
            sums.add(task, averages["probs"], target)
    if isinstance(task, Regression):
        assert target is not None
        found = _regression(task, averages, found["nll"], target)
    elif sums.rows:
        found |= sums.metrics()
        fields["reliability"] = vars(sums.reliability)
    return fields | {"metric_values": found | task.metrics(averages, target)}


def of_likelihood(task: Task, log_prob: Tensor) -> dict[str, float]:
    """The figures that need no probabilities: nll, and of language models its exponential."""
    nll = -log_prob.mean(dtype=torch.float64)
    found = {"nll": float(nll)}
    return found | {"perplexity": float(nll.exp())} if language(task) else found


class ClassificationSums:
    """Accuracy, ECE and Brier score as float64 sums over examples, which may come in batches.

    >>> from lowland.core import Classification
    >>> sums = ClassificationSums()
    >>> sums.add(Classification(), torch.tensor([[0.75, 0.25]]), torch.tensor([0]))
    >>> sums.metrics()
    {'accuracy': 1.0, 'ece': 0.25, 'brier': 0.125}
    """

    def __init__(self) -> None:
        self._bins = ReliabilitySums()
        self.rows = 0
        self._brier = 0.0
        self._users: dict[Metric, float] = {}

    def add(self, task: Task, probs: Tensor, target: Tensor) -> None:
        """Takes probabilities (B, C, ...) and the targets of the same rows."""
        rows, labels = items(task, probs, target)
        for metric in metrics(task.kind):
            if metric.function is not None:
                total = _values(metric, rows, labels).sum(dtype=torch.float64)
                self._users[metric] = self._users.get(metric, 0.0) + float(total)
        self.rows += len(rows)
        size = max(_PIECE // max(rows.shape[1], 1), 1)
        for p, y in zip(rows.split(size), labels.split(size), strict=True):
            self._add(p, y)

    def _add(self, probs: Tensor, labels: Tensor) -> None:
        if labels.ndim > 1:  # multilabel
            self._brier += float(((probs.double() - labels) ** 2).sum())
            probs, labels = by_label(probs, labels)
        else:
            # |p - e_y|^2 without the one-hot e_y, which for a vocabulary is as large as p
            hit = probs.gather(1, labels[:, None]).double()
            self._brier += float(probs.double().square().sum() - 2 * hit.sum()) + len(probs)
        confidence, chosen = probs.max(1)
        self._bins.add(confidence, chosen == labels)

    def metrics(self) -> dict[str, float]:
        """Of the examples so far."""
        accuracy = self._bins.correct.sum() / self._bins.count.sum()
        return {
            "accuracy": float(accuracy),
            "ece": self.reliability.ece,
            "brier": self._brier / max(self.rows, 1),
        } | {metric.name: total / max(self.rows, 1) for metric, total in self._users.items()}

    @property
    def reliability(self) -> Reliability:
        """The record whose ECE `metrics` gives."""
        return self._bins.reliability


def language(task: Task) -> TypeGuard[LanguageModeling]:
    """Whether rows of probabilities are tokens."""
    return isinstance(task, LanguageModeling)


def _regression(
    task: Regression, averages: dict[str, Tensor], nll: float, target: Tensor
) -> dict[str, float]:
    mean, variance = averages["mean"], averages["variance"]
    _, std = task.units(mean)
    target = target.to(mean.dtype)
    error2 = (target - mean) ** 2
    shift = log_scale(task, averages)
    each = 0.5 * ((2 * math.pi * variance).log() + error2 / variance)
    gaussian = each.sum(task.axis(mean.shape)).mean()
    return {
        "rmse": float((error2 * std**2).mean().sqrt()),
        "nll": nll + shift,
        "nll_gaussian": float(gaussian) + shift,
        "coverage": float((error2 <= Z95**2 * variance).double().mean()),
        "rmse_normalised": float(error2.mean().sqrt()),
        "nll_normalised": nll,
        "nll_gaussian_normalised": float(gaussian),
    } | _users(task, mean, variance, target)


def _users(task: Regression, mean: Tensor, variance: Tensor, target: Tensor) -> dict[str, float]:
    """Registered functions of moments and targets, which they take in the target's units."""
    functions = [metric for metric in metrics(task.kind) if metric.function is not None]
    if not functions:
        return {}
    shift, std = task.units(mean)
    moments = mean * std + shift, variance * std**2, target * std + shift
    return {m.name: float(_values(m, *moments).mean(dtype=torch.float64)) for m in functions}


def _values(metric: Metric, *of: Tensor) -> Tensor:
    """A registered function's value of each example."""
    assert metric.function is not None
    values = metric.function(*of)
    if not isinstance(values, Tensor) or values.shape[:1] != of[0].shape[:1]:
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ConfigError(
            f"metric {metric.name!r}: its function must give a value for each of {len(of[0])} "
            f"examples, got {shape}."
        )
    return values


def log_scale(task: Task, averages: dict[str, Tensor]) -> float:
    """What the NLL of an item grows by in the target's own units."""
    return task.log_scale(averages["mean"]) if isinstance(task, Regression) else 0.0


def mixture_moments(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and total variance, (N, D), of mixtures of S components, (S, N, D): E[v] + Var[m].

    The variance of the means is that of their distances from each other: E[m^2] - E[m]^2 cancels.

    >>> mixture_moments(torch.tensor([[1e8], [1e8 + 16]]), torch.ones(2, 1))
    (tensor([1.0000e+08]), tensor([65.]))
    """
    return mean.mean(0), variance.mean(0) + mean.var(0, correction=0)


def scatter(means: Tensor, before: Tensor | None, count: int) -> Tensor:
    r"""What n means more, (n, ...), add to \(\sum_s (m_s - \bar m)^2\) (Chan et al. 1983).

    Args:
        before: the sum of the `count` means so far, (...); None where there are none.

    >>> first = scatter(torch.tensor([1.0, 3.0]), None, 0)
    >>> first + scatter(torch.tensor([8.0]), torch.tensor(4.0), 2)  # of 1, 3, 8
    tensor(26.)
    """
    n, middle = len(means), means.mean(0)
    within = (means - middle).square().sum(0)
    if before is None:
        return within
    return within + (middle - before / count).square() * (count * n / (count + n))
