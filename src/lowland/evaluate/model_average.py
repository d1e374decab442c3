"""Averages over samples, batch by batch: the sink of `predict`."""

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
from lowland.scoring.error_curve import ErrorCurve, running_sums
from lowland.scoring.labels import partial_mask
from lowland.scoring.log_probs import needs_log_probs
from lowland.scoring.metric_sums import added_scatter

KEEPS = ("probs", "target", "none", "nll")


@dataclass
class BatchSums:
    """The sums over the samples so far, for one batch."""

    target: Any  # for language models, the next tokens
    mask: Tensor | None  # which items count; None: all
    sums: dict[str, Tensor]  # of the task's statistics, (B, ...) each
    log_sum: Tensor | None = None  # logsumexp of log-likelihoods, (items,) float64
    log_probs: Tensor | None = None  # logsumexp of all log probabilities, where these are small

    def log_prob(self, samples: int) -> Tensor | None:
        """Log of the mean likelihood of the items that count."""
        if self.log_sum is None:
            return None
        values = self.log_sum if self.mask is None else self.log_sum[self.mask]
        return values - math.log(samples)

    def means(self, samples: int) -> dict[str, Tensor]:
        """Means over samples, computed in place; the variance of a regression is the total."""
        means = {name: values.div_(samples) for name, values in self.sums.items()}
        if "scatter" in means:
            means["variance"] += means.pop("scatter")
        return means


class ModelAverage:
    """Running sums over samples of a task's statistics, and the likelihood's logsumexp.

    A `Sink` that holds one tensor for each statistic and batch.

    Args:
        keep: see `predict`.
        example: returns a labelled batch, for examples without labels.
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
        self._chunk_log_probs: Tensor | None = None  # (n,), over the batches of this chunk so far
        self._finite_check: Tensor | None = None  # (n,): sums, without labels

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        self.task = resolve_task(self.task, outputs, target, self.example)
        log_probs = None if target is None else -nll_per_item(self.task, outputs, target)
        # a regression's moments are small, and show how many targets there are
        nll_only = self.keep == "nll" and not isinstance(self.task, Regression)
        statistics = {} if nll_only else vmap_points(self.task.statistics, outputs)
        self.add_statistics(index, statistics, log_probs, target)
        if self.keep == "probs" and "probs" in statistics:
            self._add_all_log_probs(self.batches[index], outputs)

    def add_statistics(
        self,
        index: int,
        statistics: dict[str, Tensor],  # (n, B, ...) each
        log_probs: Tensor | None,  # (n, items)
        target: Any,
    ) -> None:
        """Adds a batch whose statistics and log-likelihoods are computed already."""
        batch = self.batches[index] if index < len(self.batches) else self._new_batch(target)
        self._add_sums(index, batch, statistics, target)
        if log_probs is not None:
            self._add_log_probs(batch, log_probs)
            return
        for values in statistics.values():
            sums = values.flatten(1).sum(1, dtype=torch.float64)
            self._finite_check = sums if self._finite_check is None else self._finite_check + sums

    def _new_batch(self, target: Any) -> BatchSums:
        if self.batches:
            require_same_labelling(self.batches[0].target, target)
        mask = None if target is None else partial_mask(self.task.valid(target))
        if isinstance(self.task, LanguageModeling) and isinstance(target, Tensor):
            target = next_tokens(target)
        self.batches.append(BatchSums(target, mask, {}))
        return self.batches[-1]

    def _add_sums(
        self, index: int, batch: BatchSums, statistics: dict[str, Tensor], target: Any
    ) -> None:
        if isinstance(self.task, Regression):
            scatter = added_scatter(statistics["mean"], batch.sums.get("mean"), self.samples)
            statistics = statistics | {"scatter": scatter.unsqueeze(0)}
        for name, values in statistics.items():
            total = batch.sums.get(name)
            if name == "probs" and self.errors is not None and isinstance(target, Tensor):
                assert isinstance(self.task, Classification)
                sums = running_sums(total, values)
                self.errors.add(self.task, index, sums, target)
                batch.sums[name] = sums[-1].clone() if len(sums) > 1 else sums[0]  # frees the rest
            elif total is None:
                batch.sums[name] = values.sum(0)
            else:
                total += values.sum(0) if len(values) > 1 else values[0]

    def _add_log_probs(self, batch: BatchSums, log_probs: Tensor) -> None:
        # sums of float32 logarithms of -500 are off by 1e-4 after thirty samples
        log_probs = log_probs.double()
        if len(log_probs) > 1:
            log_probs = log_probs.logcumsumexp(0)
        if batch.log_sum is not None:
            log_probs = torch.logaddexp(batch.log_sum, log_probs)
        batch.log_sum = log_probs[-1].clone()  # frees the rest
        valid = log_probs if batch.mask is None else log_probs[:, batch.mask]
        sums = valid.sum(1)
        running = self._chunk_log_probs
        self._chunk_log_probs = sums if running is None else running + sums
        if self.samples == 0:
            self.items += valid.shape[1]

    def _add_all_log_probs(self, batch: BatchSums, outputs: Tensor) -> None:
        total = batch.log_probs
        if total is None and (self.samples or not needs_log_probs(self.task, batch.sums["probs"])):
            return  # where the first samples' are not small, the average's are not
        task: Any = self.task
        log_probs = vmap_points(task.log_probs, outputs).logsumexp(0)
        batch.log_probs = log_probs if total is None else torch.logaddexp(total, log_probs)

    def end(self, first: int, n: int) -> None:
        self.samples += n
        if self._finite_check is not None:
            finite = torch.isfinite(self._finite_check)
            self._finite_check = None
            if not bool(finite.all()):
                raise _not_finite(first + int(finite.long().argmin()), "outputs that are NaN")
        if self._chunk_log_probs is None:
            return
        if self.errors is not None:
            self.errors.end()
        for draw, value in enumerate(self._chunk_log_probs.tolist(), start=first):
            if not math.isfinite(value):
                loss = math.log(draw + 1) - value / self.items
                raise _not_finite(draw, f"a loss of {loss}")
            self.log_probs.append(value)
        self._chunk_log_probs = None


def require_same_labelling(target: Any, other: Any) -> None:
    """Raises `DataError` where one batch has a target and the other has none."""
    if (target is None) != (other is None):
        raise DataError("some batches have targets and some have none; give all, or none.")


def _not_finite(draw: int, problem: str) -> NonFiniteError:
    return NonFiniteError(
        f"draw {draw} has {problem}; lower the posterior's scale, or look at the training run."
    )
