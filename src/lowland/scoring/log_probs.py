"""Logarithms of averaged probabilities, where float32 probabilities are too small to hold them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lowland.core import Classification, LanguageModeling, Task
from lowland.records import Predictive
from lowland.scoring.labels import binary_probs, is_multilabel, prediction_task

#: the average of millions of samples, one of which has a larger probability, has a logarithm in
#: float32, which ends at 1e-38
_SMALL = 1e-30
LOG_ZERO = torch.finfo(torch.float32).min  # finite, so that 0 * log(0) is 0


def has_independent_labels(task: Task) -> bool:
    """Whether each column is a label of its own, with 1 - p the probability of its absence."""
    return isinstance(task, Classification) and task.form == "multilabel"


def needs_log_probs(task: Task, probs: Tensor) -> bool:
    """Whether to hold logarithms beside these probabilities of a sample or of an average.

    Independent labels always need them: where p is near 1, 1 - p has lost its digits.
    """
    if type(task) not in (Classification, LanguageModeling):  # a subclass may compute its own
        return False
    return has_independent_labels(task) or float(probs.amin()) < _SMALL


def log_probs_of(pred: Predictive, task: Task | None = None) -> Tensor:
    """Logarithms of a prediction's probabilities, float64: (N, C, ...), or (N, 2, L) for
    independent labels. Without stored ones, a probability of 0 becomes the smallest of its dtype.
    """
    assert pred.probs is not None
    if pred.log_probs is not None:
        return pred.log_probs.double().clamp_min(LOG_ZERO)
    task = prediction_task(pred, task)
    independent = has_independent_labels(task)
    if pred.targets is not None:
        independent = independent or is_multilabel(task, pred.probs, pred.targets)
    info = torch.finfo(pred.probs.dtype)
    probs = binary_probs(pred.probs) if independent else pred.probs
    return probs.double().clamp_min(info.tiny * info.eps).log()


def pool_log_probs(preds: Sequence[Predictive], task: Task) -> Tensor | None:
    """Logarithms of the mean probabilities of several predictions; None where none has any."""
    if all(pred.log_probs is None for pred in preds):
        return None
    log_probs = torch.stack([log_probs_of(pred, task) for pred in preds]).logsumexp(0)
    return (log_probs - math.log(len(preds))).float()
