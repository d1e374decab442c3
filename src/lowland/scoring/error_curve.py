"""The error of a model average as it grows, sample by sample."""

from __future__ import annotations

import torch
from torch import Tensor

from lowland.core import Classification


class ErrorCurve:
    r"""\(e_s\), the share that the average of the first s samples gets wrong, s = 1, 2, ...

    Sums of probabilities are handed over batch by batch while samples stream by, so that nothing is
    held of a sample. The cost is little more than an argmax a batch and sample.

    >>> curve, task = ErrorCurve(), Classification("multiclass")
    >>> sums = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.9, 1.1], [0.4, 1.6]]])  # (2, B, C)
    >>> curve.add(task, 0, sums, torch.tensor([0, 1]))
    >>> curve.end()
    >>> curve.values
    [0.0, 0.5]
    """

    def __init__(self) -> None:
        self.wrong: list[int] = []  # of the average of the first s samples
        self.places = 0  # that can be wrong: items, or each of their labels
        self._labels: list[Tensor] = []  # by batch, (1, B, ...)
        self._counted: list[Tensor | None] = []  # by batch: of these, those that count
        self._wrong: Tensor | None = None  # (n,) of the chunk under way

    def add(self, task: Classification, index: int, sums: Tensor, target: Tensor) -> None:
        """Takes sums of probabilities (n, B, C, ...) over the first s, s + 1, ... samples."""
        if index == len(self._labels):
            self._meet(task, sums, target)
        labels = self._labels[index]
        if task.form == "multilabel":
            count = len(self.wrong) + torch.arange(1, len(sums) + 1, device=sums.device)
            wrong = (sums > (count / 2).reshape(-1, *[1] * (sums.ndim - 1))) != labels
        else:
            wrong = ~is_largest(sums, labels)
        mask = self._counted[index]
        wrong = wrong if mask is None else wrong & mask
        part = wrong.flatten(1).sum(1)
        self._wrong = part if self._wrong is None else self._wrong + part

    def _meet(self, task: Classification, sums: Tensor, target: Tensor) -> None:
        """A batch that is new: its labels, and which of them count."""
        if task.form == "multilabel":
            self._labels.append(target[None] > 0.5)
            self._counted.append(None)
            self.places += target.numel()
            return
        shape = sums.shape[1:2] + sums.shape[3:]
        mask = some(task.valid(target))
        mask = None if mask is None else mask.reshape(1, *shape)
        self._labels.append(target.reshape(1, *shape).long())
        self._counted.append(mask)
        self.places += target.numel() if mask is None else int(mask.sum())

    @property
    def values(self) -> list[float]:
        """The error of the average of the first s samples, for each s."""
        return [wrong / max(self.places, 1) for wrong in self.wrong]

    def end(self) -> None:
        """A chunk of samples has seen all batches."""
        if self._wrong is not None:
            self.wrong += self._wrong.tolist()
            self._wrong = None


def some(mask: Tensor | None) -> Tensor | None:
    """Which items count; None where all of them do, and nothing need be picked out."""
    return None if mask is None or bool(mask.all()) else mask


def is_largest(scores: Tensor, labels: Tensor) -> Tensor:  # (n, B, C, ...), (1, B, ...)
    """Whether `scores.argmax(2) == labels`.

    >>> is_largest(torch.tensor([[[1.0, 3.0, 3.0]], [[1.0, 2.0, 3.0]]]), torch.tensor([[1]]))
    tensor([[ True],
            [False]])
    """
    if len(scores) > 1 and not scores.is_cuda:
        # on a CPU torch looks for the place of the largest value by value, and for the largest
        # itself many at once
        largest = scores.amax(2, keepdim=True)
        there = scores == largest
        if int(there.count_nonzero()) == largest.numel():  # no ties, of which the first counts
            index = labels.clamp(0, scores.shape[2] - 1).expand(len(scores), *labels.shape[1:])
            return there.gather(2, index.unsqueeze(2)).squeeze(2)
    return scores.argmax(2) == labels


def running_sums(before: Tensor | None, values: Tensor) -> Tensor:  # (B, ...), (n, B, ...)
    """before + values[0], before + values[0] + values[1], ...: (n, B, ...)."""
    if len(values) == 1:
        return values if before is None else before + values
    sums = torch.empty_like(values)
    # one addition after the other: cumsum along the first dimension goes value by value
    sums[0] = values[0] if before is None else before + values[0]
    for i in range(1, len(values)):
        torch.add(sums[i - 1], values[i], out=sums[i])
    return sums
