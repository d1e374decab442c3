"""Selective prediction: the error on the examples of which a prediction is most certain."""

from __future__ import annotations

import torch
from torch import Tensor

from lowland.core import Task
from lowland.errors import ConfigError, DataError
from lowland.records import Predictive, RiskCoverage
from lowland.scoring.labels import labelled_items, prediction_task
from lowland.uncertainty.ood import item_uncertainties


def selective(
    pred: Predictive, *, score: str = "max probability", task: Task | None = None
) -> RiskCoverage:
    r"""The error on the n most certain examples, for every n (Geifman et al. 2019).

    \(r(n) = \frac1n \sum_{i \le n} 1[\hat y_i \ne y_i]\), examples in order of certainty; coverage
    is n/N, and \(\text{AURC} = \frac1N \sum_n r(n)\). Examples of equal certainty count as their
    mean, so that their order does not matter.

    Args:
        pred: with probabilities and targets.
        score: the uncertainty, a name that `uncertainties` returns: "max probability", "entropy"
            or "mutual information".
        task: the task of the prediction; None: the one that the prediction carries.

    Raises:
        ConfigError: an unknown score, or one that has no value for each label. DataError: a
            prediction without probabilities or targets.

    >>> probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.5, 0.5]])
    >>> pred = Predictive("classification", 1, probs=probs, targets=torch.tensor([0, 0, 1, 1]))
    >>> record = selective(pred)  # wrong on the least certain example
    >>> record.risk.tolist(), record.aurc
    ([0.0, 0.0, 0.0, 0.25], 0.0625)
    """
    probs, labels = labelled_items(pred, task)
    wrong = (probs.argmax(1) != labels).double()
    scores, mask = item_uncertainties(pred, prediction_task(pred, task))
    scores = {name: u.flatten() if mask is None else u[mask] for name, u in scores.items()}
    scores["max probability"] = 1 - probs.double().amax(1)  # also of each independent label
    if score not in scores:
        raise ConfigError(f"score: expected one of {', '.join(scores)}, got {score!r}.")
    if len(scores[score]) != len(wrong):
        raise ConfigError(
            f"score: {score!r} has {len(scores[score])} values, and {len(wrong)} labels are right "
            "or wrong; use 'max probability'."
        )
    return risk_coverage(scores[score], wrong)


def risk_coverage(uncertainty: Tensor, loss: Tensor) -> RiskCoverage:  # (N,), (N,)
    """The mean loss of the n most certain examples, for every n.

    >>> risk_coverage(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0])).risk  # a tie
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    if not len(loss):
        raise DataError("there are no examples to select from; predict some.")
    _, ranks, counts = torch.unique(uncertainty, return_inverse=True, return_counts=True)
    means = torch.bincount(ranks, loss.double()) / counts
    covered = torch.arange(1, len(loss) + 1, dtype=torch.float64)
    risk = means.repeat_interleave(counts).cumsum(0) / covered
    return RiskCoverage(covered / len(loss), risk)
