"""Logarithms of averaged probabilities, which float32 probabilities do not hold where they are
small."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lowland.core import Classification, LanguageModeling, Task
from lowland.records import Predictive
from lowland.scoring.labels import is_multilabel, pairs, task_of

#: the logarithm of a probability that is above it in one sample can be taken of the average of
#: millions; float32 ends at 1e-38
_FAINT = 1e-30
LEAST = torch.finfo(torch.float32).min  # in place of the logarithm of 0, so that 0 times it is 0


def is_independent(task: Task) -> bool:
    """Whether columns are labels of their own: 1 - p is then a probability, too."""
    return isinstance(task, Classification) and task.form == "multilabel"


def needs_log_probs(task: Task, probs: Tensor) -> bool:
    """Whether to hold logarithms beside these probabilities of a sample or of an average.

    Of independent labels always: 1 - p has lost its digits where p is near 1.
    """
    if type(task) not in (Classification, LanguageModeling):  # others may make their own
        return False
    return is_independent(task) or float(probs.amin()) < _FAINT


def log_probs_of(pred: Predictive, task: Task | None = None) -> Tensor:
    """Logarithms of a prediction's probabilities, float64: (N, C, ...), or (N, 2, C) of labels of
    their own. Where the record has none, a probability of 0 becomes the least that its dtype has.
    """
    assert pred.probs is not None
    if pred.log_probs is not None:
        return pred.log_probs.double().clamp_min(LEAST)
    task = task_of(pred, task)
    labels = is_independent(task)
    if pred.targets is not None:
        labels = labels or is_multilabel(task, pred.probs, pred.targets)
    info = torch.finfo(pred.probs.dtype)
    probs = pairs(pred.probs) if labels else pred.probs
    return probs.double().clamp_min(info.tiny * info.eps).log()


def pool_log_probs(preds: Sequence[Predictive], task: Task) -> Tensor | None:
    """Those of the linear pool, where one of the predictions has them."""
    if all(pred.log_probs is None for pred in preds):
        return None
    logs = torch.stack([log_probs_of(pred, task) for pred in preds]).logsumexp(0)
    return (logs - math.log(len(preds))).float()
