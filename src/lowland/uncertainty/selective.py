"""Selective prediction: how wrong a network is on the rows that it is sure of."""

from __future__ import annotations

import torch
from torch import Tensor

from lowland.core import Task
from lowland.errors import ConfigError, DataError
from lowland.records import Predictive, RiskCoverage
from lowland.scoring.labels import labelled_items, task_of
from lowland.uncertainty.ood import item_uncertainties


def selective(
    pred: Predictive, *, score: str = "max probability", task: Task | None = None
) -> RiskCoverage:
    r"""The error on the n rows that a prediction is surest of, for every n (Geifman et al. 2019).

    \(r(n) = \frac1n \sum_{i \le n} 1[\hat y_i \ne y_i]\), rows in order of certainty; coverage is
    n/N, and \(\text{AURC} = \frac1N \sum_n r(n)\). Rows of equal certainty count as their mean, so
    that the order in which they came does not matter.

    Args:
        pred: with probabilities and targets. score: what certainty is read from, a name that
            `uncertainties` gives: "max probability", "entropy" or "mutual information".
        task: as it was predicted with; None: the one that the prediction carries.

    >>> probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.5, 0.5]])
    >>> pred = Predictive("classification", 1, probs=probs, targets=torch.tensor([0, 0, 1, 1]))
    >>> record = selective(pred)  # wrong on the row that it is least sure of
    >>> record.risk.tolist(), record.aurc
    ([0.0, 0.0, 0.0, 0.25], 0.0625)
    """
    probs, labels = labelled_items(pred, task)
    wrong = (probs.argmax(1) != labels).double()
    each, counted = item_uncertainties(pred, task_of(pred, task))
    scores = {name: u.flatten() if counted is None else u[counted] for name, u in each.items()}
    scores["max probability"] = 1 - probs.double().amax(1)  # of each of a row's labels, too
    if score not in scores:
        raise ConfigError(f"score: expected one of {', '.join(scores)}, got {score!r}.")
    if len(scores[score]) != len(wrong):
        raise ConfigError(
            f"score: {score!r} is of {len(scores[score])} rows, and {len(wrong)} items are right "
            "or wrong; use 'max probability'."
        )
    return risk_coverage(scores[score], wrong)


def risk_coverage(uncertainty: Tensor, loss: Tensor) -> RiskCoverage:  # (N,), (N,)
    """Mean loss of the surest n rows, for every n.

    >>> risk_coverage(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0])).risk  # a tie
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    if not len(loss):
        raise DataError("there are no rows to select from; predict some.")
    _, ties, counts = torch.unique(uncertainty, return_inverse=True, return_counts=True)
    means = torch.bincount(ties, loss.double()) / counts
    covered = torch.arange(1, len(loss) + 1, dtype=torch.float64)
    risk = means.repeat_interleave(counts).cumsum(0) / covered
    return RiskCoverage(covered / len(loss), risk)
