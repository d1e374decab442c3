"""Averages over samples, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lowland.core import Classification, LanguageModeling, Regression, Task
from lowland.core.language import next_tokens
from lowland.errors import DataError, NonFiniteError
from lowland.evaluate.nll import nll_per_item, resolve_task, vmap_points
from lowland.scoring.error_curve import ErrorCurve, running_sums, some
from lowland.scoring.log_probs import needs_log_probs
from lowland.scoring.metric_sums import (
    scatter,
)

KEEPS = ("probs", "target", "none", "nll")


@dataclass
class BatchSums:
    """What is held of a batch: sums over the samples so far."""

    target: Any  # of language models the next tokens
    mask: Tensor | None  # which items count; None: all
    sums: dict[str, Tensor]  # of the task's statistics, (B, ...) each
    log_sum: Tensor | None = None  # logsumexp of log-likelihoods, (items,) float64
    log_probs: Tensor | None = None  # and of all probabilities, where they are small

    def log_prob(self, samples: int) -> Tensor | None:
        """Log of the mean likelihood of the items that count."""
        if self.log_sum is None:
            return None
        values = self.log_sum if self.mask is None else self.log_sum[self.mask]
        return values - math.log(samples)

    def means(self, samples: int) -> dict[str, Tensor]:
        """Means over samples, in the place of the sums; a regression's variance is the total."""
        means = {name: values.div_(samples) for name, values in self.sums.items()}
        if "scatter" in means:
            means["variance"] += means.pop("scatter")
        return means


class Average:
    """Running sums over samples of a task's statistics, and the likelihood's logsumexp.

    A `Sink`: what it holds is one tensor a statistic and batch.

    Args:
        keep: see `predict`. example: gives a labelled batch, for rows without labels.
        errors: whether to count the errors of the first s samples' average, for each s.
    """

    holds_examples = False

    def __init__(
        self,
        task: Task,
        *,
        keep: str = "none",
        example: Callable[[], Any] | None = None,
        errors: bool = False,
    ) -> None:
        self.task = task
        self.keep = keep
        self.example = example
        self.errors = ErrorCurve() if errors and isinstance(task, Classification) else None
        self.samples = 0
        self.batches: list[BatchSums] = []
        self.items = 0
        self.log_probs: list[float] = []  # of the first s samples' average, summed over items
        self._partial: Tensor | None = None  # (n,) of the chunk under way
        self._unlabelled: Tensor | None = None  # (n,): a sum that shows what is not finite

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        self.task = resolve_task(self.task, outputs, target, self.example)
        log_probs = None if target is None else -nll_per_item(self.task, outputs, target)
        # a regression's moments are small, and say how many targets there are
        bare = self.keep == "nll" and not isinstance(self.task, Regression)
        statistics = {} if bare else vmap_points(self.task.statistics, outputs)
        self.take(index, statistics, log_probs, target)
        if self.keep == "probs" and "probs" in statistics:
            self._add_all_log_probs(self.batches[index], outputs)

    def take(
        self,
        index: int,
        statistics: dict[str, Tensor],  # (n, B, ...) each
        log_probs: Tensor | None,  # (n, items)
        target: Any,
    ) -> None:
        """What `add` does, with the task's part of the work done."""
        batch = self.batches[index] if index < len(self.batches) else self._batch(target)
        self._add_statistics(index, batch, statistics, target)
        if log_probs is not None:
            self._add_log_probs(batch, log_probs)
            return
        for values in statistics.values():
            part = values.flatten(1).sum(1, dtype=torch.float64)
            self._unlabelled = part if self._unlabelled is None else self._unlabelled + part

    def _batch(self, target: Any) -> BatchSums:
        """A batch that is new."""
        if self.batches:
            require_alike(self.batches[0].target, target)
        mask = None if target is None else some(self.task.valid(target))
        if isinstance(self.task, LanguageModeling) and isinstance(target, Tensor):
            target = next_tokens(target)
        self.batches.append(BatchSums(target, mask, {}))
        return self.batches[-1]

    def _add_statistics(
        self, index: int, batch: BatchSums, statistics: dict[str, Tensor], target: Any
    ) -> None:
        if isinstance(self.task, Regression):
            apart = scatter(statistics["mean"], batch.sums.get("mean"), self.samples)
            statistics = statistics | {"scatter": apart.unsqueeze(0)}
        for name, values in statistics.items():
            before = batch.sums.get(name)
            if name == "probs" and self.errors is not None and isinstance(target, Tensor):
                assert isinstance(self.task, Classification)
                sums = running_sums(before, values)
                self.errors.add(self.task, index, sums, target)
                batch.sums[name] = sums[-1].clone() if len(sums) > 1 else sums[0]  # no other
            elif before is None:
                batch.sums[name] = values.sum(0)
            else:
                before += values.sum(0) if len(values) > 1 else values[0]

    def _add_log_probs(self, batch: BatchSums, log_probs: Tensor) -> None:
        # sums of float32 logarithms of -500 are off by 1e-4 after thirty samples
        log_probs = log_probs.double()
        if len(log_probs) > 1:
            log_probs = log_probs.logcumsumexp(0)
        if batch.log_sum is not None:
            log_probs = torch.logaddexp(batch.log_sum, log_probs)
        batch.log_sum = log_probs[-1].clone()  # without the other rows
        valid = log_probs if batch.mask is None else log_probs[:, batch.mask]
        part = valid.sum(1)
        self._partial = part if self._partial is None else self._partial + part
        if self.samples == 0:
            self.items += valid.shape[1]

    def _add_all_log_probs(self, batch: BatchSums, outputs: Tensor) -> None:
        before = batch.log_probs
        if before is None and (self.samples or not needs_log_probs(self.task, batch.sums["probs"])):
            return  # what is not small in the first samples is not small on average
        task: Any = self.task
        log_probs = vmap_points(task.log_probs, outputs).logsumexp(0)
        batch.log_probs = log_probs if before is None else torch.logaddexp(before, log_probs)

    def end(self, first: int, n: int) -> None:
        self.samples += n
        if self._unlabelled is not None:
            finite = torch.isfinite(self._unlabelled)
            self._unlabelled = None
            if not bool(finite.all()):
                raise _not_finite(first + int(finite.long().argmin()), "outputs that are NaN")
        if self._partial is None:
            return
        if self.errors is not None:
            self.errors.end()
        for draw, value in enumerate(self._partial.tolist(), start=first):
            if not math.isfinite(value):
                loss = math.log(draw + 1) - value / self.items
                raise _not_finite(draw, f"a loss of {loss}")
            self.log_probs.append(value)
        self._partial = None


def require_alike(one: Any, other: Any) -> None:
    """Raises `DataError` where one batch has a target and the other has none."""
    if (one is None) != (other is None):
        raise DataError("some batches have targets and some have none; give all, or none.")


def _not_finite(draw: int, what: str) -> NonFiniteError:
    return NonFiniteError(
        f"draw {draw} has {what}; lower the posterior's scale, or look at the training run."
    )
