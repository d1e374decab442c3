"""Figures of merit, through torchmetrics where it has them; it loads on first use."""

from __future__ import annotations

import copy
import math
from typing import TypeGuard

import torch
from torch import Tensor

from lowland.core import Classification, LanguageModeling, Regression, Task
from lowland.errors import ConfigError
from lowland.records import Predictive, Reliability

BINS = 15
Z95 = 1.959963984540054  # half the width of a central 95% interval, in standard deviations


def figures(
    task: Task, averages: dict[str, Tensor], log_prob: Tensor, target: Tensor
) -> dict[str, float]:
    """What `Predictive.metrics()` gives.

    Args:
        averages: means of `task.statistics` over samples, all rows.
        log_prob: log of the mean likelihood, of the items that count. target: all rows' targets, of
            language models `next_tokens`.
    """
    found = of_likelihood(task, log_prob)
    if isinstance(task, Regression):
        found = _regression(task, averages, found["nll"], target)
    elif "probs" in averages:
        found |= _classification(task, averages["probs"], target)
    return found | task.metrics(averages, target)


def of_likelihood(task: Task, log_prob: Tensor) -> dict[str, float]:
    """The figures that need no probabilities: nll, and of language models its exponential."""
    nll = -log_prob.mean(dtype=torch.float64)
    found = {"nll": float(nll)}
    return found | {"perplexity": float(nll.exp())} if language(task) else found


def _classification(task: Task, probs: Tensor, target: Tensor) -> dict[str, float]:
    from torchmetrics.functional import classification as tm

    rows, labels = items(task, probs, target)
    if labels.ndim == 2:  # multilabel
        brier = ((rows.double() - labels) ** 2).sum(1)
        rows, labels = _by_label(rows, labels)
    else:
        # |p - e_y|^2 without the one-hot e_y, which for a vocabulary is as large as p
        hit = rows.gather(1, labels[:, None])[:, 0].double()
        brier = rows.square().sum(1, dtype=torch.float64) - 2 * hit + 1
    classes = rows.shape[1]
    accuracy = tm.multiclass_accuracy(rows, labels, classes, average="micro", validate_args=False)
    # torchmetrics gives a confidence of 1 a bin beyond the last one, and takes one that is above 1
    # by rounding for a logit
    sure = rows.clamp(0, 1 - torch.finfo(rows.dtype).eps / 2)
    ece = tm.multiclass_calibration_error(sure, labels, classes, n_bins=BINS, validate_args=False)
    return {"accuracy": float(accuracy), "ece": float(ece), "brier": float(brier.mean())}


def reliability(
    probs: Tensor, labels: Tensor, *, bins: int = BINS, equal: str = "width"
) -> Reliability:
    """Mean confidence and accuracy in bins of confidence (Guo et al. 2017).

    Confidence is the largest probability, (N, C) -> (N,). Bins of equal width are [0, 1/bins),
    [1/bins, 2/bins)..., the last closed; of equal count, the rows in order of confidence cut into
    equal parts, as in Maddox et al. 2019, so that the crowd of sure predictions is not one point.

    >>> result = reliability(torch.tensor([[0.9, 0.1], [0.7, 0.3]]), torch.tensor([0, 1]), bins=5)
    >>> result.count.tolist(), round(result.ece, 3)
    ([0, 0, 0, 1, 1], 0.4)
    """
    if bins < 1:
        raise ConfigError(f"bins: expected at least 1, got {bins}.")
    if equal not in ("width", "count"):
        raise ConfigError(f"equal: expected 'width' or 'count', got {equal!r}.")
    confidence, chosen = probs.max(1)
    if equal == "width":
        # compared in the probabilities' own dtype, in which 0.6 is the edge 9/15
        edges = (torch.arange(1, bins, dtype=torch.float64) / bins).to(confidence)
        index = torch.bucketize(confidence, edges, right=True)
    else:
        places = confidence.argsort(stable=True).argsort()
        index = places * bins // len(places)
    count = torch.bincount(index, minlength=bins)
    correct = torch.bincount(index, (chosen == labels).double(), minlength=bins)
    total = torch.bincount(index, confidence.double(), minlength=bins)
    return Reliability(total / count, correct / count, count)


def reliability_of(task: Task, probs: Tensor, target: Tensor) -> dict[str, Tensor]:
    """The fields of the reliability of a predictive's items."""
    return vars(reliability(*categorical(task, probs, target)))


def categorical(task: Task, probs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (M, C) and labels (M,); each label of a multilabel row becomes a pair."""
    rows, labels = items(task, probs, target)
    return _by_label(rows, labels) if labels.ndim == 2 else (rows, labels)


def pairs(probs: Tensor) -> Tensor:  # (N, L) -> (N, 2, L)
    """Probabilities of no and yes, for independent labels."""
    return torch.stack([1 - probs, probs], 1)


def _by_label(probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return pairs(probs).movedim(1, -1).reshape(-1, 2), labels.reshape(-1)


def task_of(pred: Predictive, task: Task | None) -> Task:
    """The task that a prediction was made with, in the form that its labels showed then: integer
    targets of several labels, or no targets at all, would not tell."""
    task = task or Classification()
    if isinstance(task, Classification) and task.form is None and pred.form is not None:
        task = copy.copy(task)
        task.form = pred.form
    return task


def is_multilabel(task: Task, probs: Tensor, target: Tensor) -> bool:
    """Whether the columns of `probs` are independent labels."""
    if not isinstance(task, Classification):
        return False
    if task.form is not None:
        return task.form == "multilabel"
    return target.is_floating_point() and target.shape == probs.shape


def items(task: Task, probs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (items, C) and labels (items,), or (items, C) for multilabel, that count."""
    if is_multilabel(task, probs, target):
        return probs, target.long()
    labels = target.reshape(-1).long()
    probs = probs.movedim(1, -1).reshape(-1, probs.shape[1])
    # `valid` of a language model shifts the labels, which `next_tokens` has done
    mask = labels != task.ignore_index if language(task) else task.valid(target)
    return (probs, labels) if mask is None or bool(mask.all()) else (probs[mask], labels[mask])


def language(task: Task) -> TypeGuard[LanguageModeling]:
    """Whether rows of probabilities are tokens."""
    return isinstance(task, LanguageModeling)


def next_tokens(labels: Tensor) -> Tensor:  # (B, T) -> (B * (T - 1),)
    """The tokens that a language model predicts, as its probabilities are: a row a token."""
    return labels[:, 1:].reshape(-1)


def _regression(
    task: Regression, averages: dict[str, Tensor], nll: float, target: Tensor
) -> dict[str, float]:
    from torchmetrics.functional import mean_squared_error

    mean, variance = total_variance(averages)
    std = task.target_std.to(mean.device)
    target = target.to(mean.dtype)
    error2 = (target - mean) ** 2
    shift = log_scale(task, averages)
    gaussian = 0.5 * ((2 * math.pi * variance).log() + error2 / variance).sum(1).mean()
    return {
        "rmse": float(mean_squared_error(mean * std, target * std, squared=False)),
        "nll": nll + shift,
        "nll_gaussian": float(gaussian) + shift,
        "coverage": float((error2 <= Z95**2 * variance).double().mean()),
        "rmse_normalised": float(error2.mean().sqrt()),
        "nll_normalised": nll,
        "nll_gaussian_normalised": float(gaussian),
    }


def log_scale(task: Task, averages: dict[str, Tensor]) -> float:
    """What the NLL of a row grows by in the target's own units."""
    if not isinstance(task, Regression):
        return 0.0
    return float(task.target_std.log().expand(averages["mean"].shape[1]).sum())


def total_variance(averages: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and total variance, (N, D) float64, of the mixture: E[v] + Var[m]."""
    mean = averages["mean"]
    return mean, (averages["second"] - mean**2).clamp_min(torch.finfo(torch.float64).tiny)
