"""Confidence against accuracy, in bins of confidence."""

from __future__ import annotations

import torch
from torch import Tensor

from lowland import checks
from lowland.core import Task
from lowland.core.task import require_labels
from lowland.errors import ConfigError
from lowland.records import Predictive, Reliability
from lowland.scoring.labels import ADVICE, labelled_items

BINS = 15


def reliability(
    probs: Tensor | Predictive,
    labels: Tensor | None = None,
    *,
    bins: int = BINS,
    equal: str = "width",
    task: Task | None = None,
) -> Reliability:
    r"""Mean confidence and accuracy in bins of confidence (Guo et al. 2017).

    Confidence is the largest probability, \(\max_c p_{nc}\). Bins of equal width are [0, 1/bins),
    [1/bins, 2/bins)..., the last closed. Bins of equal count cut the examples, in order of
    confidence, into equal parts, as in Maddox et al. 2019: many confident predictions then fill
    more than one bin.

    Args:
        probs: a prediction, of which the items that its task counts are used; or probabilities
            (N, C), with labels (N,).
        task: the task of the prediction; None: the one that the prediction carries.

    Raises:
        DataError: labels that are no class.

    >>> result = reliability(torch.tensor([[0.9, 0.1], [0.7, 0.3]]), torch.tensor([0, 1]), bins=5)
    >>> result.count.tolist(), round(result.ece, 3)
    ([0, 0, 0, 1, 1], 0.4)
    """
    bins = checks.whole("bins", bins, least=1, most=1_000_000)
    checks.choice("equal", equal, ("width", "count"))
    if isinstance(probs, Predictive):
        probs, labels = labelled_items(probs, task)
    if labels is None:
        raise ConfigError("labels: give the labels (N,) of the probabilities, or a prediction.")
    require_labels(labels, probs.shape[1], advice=ADVICE)
    confidence, predicted = probs.max(1)
    sums = ReliabilitySums(bins)
    index = None
    if equal == "count":
        index = confidence.argsort(stable=True).argsort() * bins // len(confidence)
    sums.add(confidence, predicted == labels, index)
    return sums.reliability


class ReliabilitySums:
    """Sums over examples by bin, in float64, for examples that come in batches.

    In float32 a bin's sum of confidences stops growing after some hundred thousand examples.

    >>> sums = ReliabilitySums(bins=2)
    >>> for _ in range(3):
    ...     sums.add(torch.tensor([0.75, 0.25]), torch.tensor([True, False]))
    >>> sums.reliability.confidence.tolist(), sums.reliability.accuracy.tolist()
    ([0.25, 0.75], [0.0, 1.0])
    """

    def __init__(self, bins: int = BINS) -> None:
        self.bins = bins
        self.count = torch.zeros(bins, dtype=torch.int64)
        self.correct = torch.zeros(bins, dtype=torch.float64)
        self.confidence = torch.zeros(bins, dtype=torch.float64)

    def add(self, confidence: Tensor, correct: Tensor, index: Tensor | None = None) -> None:
        """Takes confidences and whether the predictions are right, (N,) each.

        `index`: their bins; None: those of equal width.
        """
        if index is None:
            # compared in the probabilities' own dtype, in which 0.6 is the edge 9/15
            edges = (torch.arange(1, self.bins, dtype=torch.float64) / self.bins).to(confidence)
            index = torch.bucketize(confidence, edges, right=True)
        self.count += torch.bincount(index, minlength=self.bins).cpu()
        self.correct += torch.bincount(index, correct.double(), minlength=self.bins).cpu()
        self.confidence += torch.bincount(index, confidence.double(), minlength=self.bins).cpu()

    @property
    def reliability(self) -> Reliability:
        """The record of the examples so far."""
        return Reliability(self.confidence / self.count, self.correct / self.count, self.count)
