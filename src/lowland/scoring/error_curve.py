"""The error of a model average as it grows, sample by sample."""

from __future__ import annotations

import torch
from torch import Tensor

from lowland.core import Classification
from lowland.scoring.labels import partial_mask


class ErrorCurve:
    r"""\(e_s\), the error of the average of the first s samples, for s = 1, 2, ...

    It takes sums of probabilities batch by batch while samples are averaged, and keeps nothing of a
    sample. The cost is little more than an argmax per batch and sample.

    >>> curve, task = ErrorCurve(), Classification("multiclass")
    >>> sums = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.9, 1.1], [0.4, 1.6]]])  # (2, B, C)
    >>> curve.add(task, 0, sums, torch.tensor([0, 1]))
    >>> curve.end()
    >>> curve.errors
    [0.0, 0.5]
    """

    def __init__(self) -> None:
        self.wrong: list[int] = []  # labels that the average of the first s samples gets wrong
        self.count = 0  # labels that count
        self._labels: list[Tensor] = []  # by batch, (1, B, ...)
        self._masks: list[Tensor | None] = []  # by batch: which labels count; None: all
        self._chunk_wrong: Tensor | None = None  # (n,), in the batches of this chunk so far

    def add(self, task: Classification, index: int, sums: Tensor, target: Tensor) -> None:
        """Takes sums of probabilities (n, B, C, ...) over the first s, s + 1, ... samples."""
        if index == len(self._labels):
            self._add_batch(task, sums, target)
        labels = self._labels[index]
        if task.form == "multilabel":
            samples = len(self.wrong) + torch.arange(1, len(sums) + 1, device=sums.device)
            wrong = (sums > (samples / 2).reshape(-1, *[1] * (sums.ndim - 1))) != labels
        else:
            wrong = ~is_largest(sums, labels)
        mask = self._masks[index]
        wrong = wrong if mask is None else wrong & mask
        counts = wrong.flatten(1).sum(1)
        self._chunk_wrong = counts if self._chunk_wrong is None else self._chunk_wrong + counts

    def _add_batch(self, task: Classification, sums: Tensor, target: Tensor) -> None:
        """Keeps the labels of a batch, and which of them count."""
        if task.form == "multilabel":
            self._labels.append(target[None] > 0.5)
            self._masks.append(None)
            self.count += target.numel()
            return
        shape = sums.shape[1:2] + sums.shape[3:]
        mask = partial_mask(task.valid(target))
        mask = None if mask is None else mask.reshape(1, *shape)
        self._labels.append(target.reshape(1, *shape).long())
        self._masks.append(mask)
        self.count += target.numel() if mask is None else int(mask.sum())

    @property
    def errors(self) -> list[float]:
        """The error of the average of the first s samples, for each s."""
        return [wrong / max(self.count, 1) for wrong in self.wrong]

    def end(self) -> None:
        """Ends a chunk of samples, which has seen all batches."""
        if self._chunk_wrong is not None:
            self.wrong += self._chunk_wrong.tolist()
            self._chunk_wrong = None


def is_largest(scores: Tensor, labels: Tensor) -> Tensor:  # (n, B, C, ...), (1, B, ...)
    """Whether `scores.argmax(2) == labels`.

    >>> is_largest(torch.tensor([[[1.0, 3.0, 3.0]], [[1.0, 2.0, 3.0]]]), torch.tensor([[1]]))
    tensor([[ True],
            [False]])
    """
    if len(scores) > 1 and not scores.is_cuda:
        # on a CPU torch computes an argmax value by value, and a maximum many values at once
        largest = scores.amax(2, keepdim=True)
        equal = scores == largest
        if int(equal.count_nonzero()) == largest.numel():  # no ties: argmax takes their first
            index = labels.clamp(0, scores.shape[2] - 1).expand(len(scores), *labels.shape[1:])
            return equal.gather(2, index.unsqueeze(2)).squeeze(2)
    return scores.argmax(2) == labels


def running_sums(start: Tensor | None, values: Tensor) -> Tensor:  # (B, ...), (n, B, ...)
    """start + values[0], start + values[0] + values[1], ...: (n, B, ...).

    >>> running_sums(torch.tensor([1.0]), torch.tensor([[1.0], [2.0]])).tolist()
    [[2.0], [4.0]]
    """
    if len(values) == 1:
        return values if start is None else start + values
    sums = torch.empty_like(values)
    # one addition after the other: cumsum along the first dimension goes value by value
    sums[0] = values[0] if start is None else start + values[0]
    for i in range(1, len(values)):
        torch.add(sums[i - 1], values[i], out=sums[i])
    return sums
