"""Averages over samples, batch by batch, and what is left of them when batches are complete."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lowland.core import Classification, LanguageModeling, Regression, Task
from lowland.core.language import next_tokens
from lowland.errors import DataError, NonFiniteError
from lowland.evaluate.errors import ErrorCurve, running_sums, some
from lowland.evaluate.logarithms import needed
from lowland.evaluate.metrics import (
    ClassificationSums,
    labelled_fields,
    log_scale,
    of_likelihood,
    scatter,
)
from lowland.evaluate.nll import likelihoods, over_points, settled
from lowland.records import Predictive

Axis = Callable[[Sequence[int]], int]  # of a shape
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

    whole = False

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
        self.task = settled(self.task, outputs, target, self.example)
        log_probs = None if target is None else -likelihoods(self.task, outputs, target)
        # a regression's moments are small, and say how many targets there are
        bare = self.keep == "nll" and not isinstance(self.task, Regression)
        statistics = {} if bare else over_points(self.task.statistics, outputs)
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
        if before is None and (self.samples or not needed(self.task, batch.sums["probs"])):
            return  # what is not small in the first samples is not small on average
        task: Any = self.task
        log_probs = over_points(task.log_probs, outputs).logsumexp(0)
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


def by_items(task: Task) -> bool:
    """Whether metrics are sums of what each item gives, so that averages of one batch do not have
    to wait for those of another."""
    kinds = isinstance(task, Classification | LanguageModeling)
    return kinds and type(task).metrics is Task.metrics


class Summary:
    """What a `Predictive` is made of, taken from averages that are complete.

    Of each item its numbers are held. Averages of probabilities are held where `keep` says so, or
    where the task's metrics need those of all batches.
    """

    def __init__(self, keep: str = "none") -> None:
        self.keep = keep
        self.samples = self._items = self._places = 0
        self._task: Task | None = None
        self._sums = ClassificationSums()
        self._log_prob: list[Tensor] = []  # by batch
        self._means: dict[str, list[Tensor]] = {}  # by name and batch
        self._information: dict[str, list[Tensor]] = {}
        self._log_probs: dict[int, Tensor] = {}  # by the number of the batch, where there are some
        self._targets: list[Any] = []
        self._curve = torch.zeros(0, dtype=torch.float64)  # log-likelihoods of s samples, summed
        self._wrong = torch.zeros(0, dtype=torch.float64)  # how many of s samples' average are

    def add(self, average: Average) -> None:
        """Takes the batches of an average, whose sums become means."""
        self._task, self.samples = average.task, average.samples
        for batch in average.batches:
            if self._targets:
                require_alike(self._targets[0], batch.target)
            self._add(average.task, batch)
        self._items += average.items
        self._curve = _plus(self._curve, average.log_probs)
        if average.errors is not None:
            self._wrong = _plus(self._wrong, average.errors.wrong)
            self._places += average.errors.places
        average.batches = []

    def _add(self, task: Task, batch: BatchSums) -> None:
        means, log_prob, target = batch.means(self.samples), batch.log_prob(self.samples), None
        if isinstance(batch.target, Tensor):
            target = batch.target
        if "probs" in means and target is not None:
            self._sums.add(task, means["probs"], target)
        if log_prob is not None:
            self._log_prob.append(log_prob.cpu())
        if self.keep in ("probs", "target"):
            _append(self._information, _information(task, means))
        if batch.log_probs is not None:
            number = len(self._targets)
            self._log_probs[number] = (batch.log_probs - math.log(self.samples)).cpu()
        if self.keep == "probs" or not by_items(task):
            _append(self._means, means)
            self._targets.append(batch.target if target is None else target.cpu())
        else:
            self._targets.append(None if batch.target is None else ())  # that there was one

    def log_prob(self) -> Tensor | None:
        """Log of the mean likelihood of the items that count; None without targets."""
        return torch.cat(self._log_prob) if self._log_prob else None

    def predictive(self) -> Predictive:
        """The record of the batches so far."""
        assert self._task is not None
        task = self._task.to_dict()
        return Predictive(self._task.kind, self.samples, task=task, **self.fields())

    def fields(self) -> dict[str, Any]:
        """Those of the record that are known."""
        task = self._task
        assert task is not None
        if "probs" in self._means:
            self._means["probs"] = _padded(self._means["probs"])
        means = {name: joined(each, _axis(task, name)) for name, each in self._means.items()}
        target, log_prob = self._target(task), self.log_prob()
        fields: dict[str, Any] = {n: joined(parts) for n, parts in self._information.items()}
        if log_prob is not None:
            shift = log_scale(task, means)
            counts = torch.arange(1, self.samples + 1, dtype=torch.float64)
            fields["nll_by_samples"] = counts.log() - self._curve / self._items + shift
            if len(self._wrong):
                fields["error_by_samples"] = self._wrong / max(self._places, 1)
            if by_items(task) or (means and target is not None):
                fields |= labelled_fields(task, means, log_prob, target, self._sums)
            else:
                fields["figures"] = of_likelihood(task, log_prob)
            if self.keep in ("probs", "target"):
                fields["target_log_prob"] = log_prob - shift
        if self.keep == "probs":
            fields |= {"probs": means.get("probs"), "targets": target}
            if self._log_probs:
                every = enumerate(self._means["probs"])
                logs = [self._log_probs.get(i, probs.log()) for i, probs in every]
                fields["log_probs"] = joined(_padded(logs, -math.inf), _axis(task, "probs"))
            if isinstance(task, Regression):
                fields |= _in_units(task, means, target)
        return fields

    def _target(self, task: Task) -> Tensor | None:
        """The targets of all rows, where they are tensors that are held."""
        if not all(isinstance(target, Tensor) for target in self._targets):
            return None
        if not isinstance(task, Classification | Regression) and ragged(self._targets):
            return None
        return joined(self._targets, _axis(task, "targets"))


def _axis(task: Task, name: str) -> Axis | None:
    """Where a statistic has classes or targets, besides rows and positions."""
    if isinstance(task, Regression):
        return task.axis
    return (lambda _: 1) if name == "probs" else None


def _append(lists: dict[str, list[Tensor]], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        lists.setdefault(name, []).append(value.cpu())


def _plus(sums: Tensor, values: Sequence[float]) -> Tensor:
    """Sums of (S,) by batch; at first there are none."""
    found = torch.tensor(values, dtype=torch.float64)
    return sums + found if len(sums) else found


def require_alike(one: Any, other: Any) -> None:
    """Raises `DataError` where one batch has a target and the other has none."""
    if (one is None) != (other is None):
        raise DataError("some batches have targets and some have none; give all, or none.")


def joined(parts: list[Tensor], axis: Axis | None = None) -> Tensor:  # (N_i, ...) each
    """All rows; where batches are of several image sizes, a row a position, with what lies on the
    axis of a shape."""
    if not ragged(parts):
        return torch.cat(parts)
    if axis is None:
        return torch.cat([part.reshape(-1) for part in parts])
    lasts = [part.movedim(axis(part.shape), -1) for part in parts]
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in lasts])


def _padded(parts: list[Tensor], value: float = 0.0) -> list[Tensor]:  # (N_i, C_i, ...) each
    """With zeros for classes that only other batches have: where a class is a place in a text."""
    most = max(part.shape[1] for part in parts)
    if all(part.shape[1] == most for part in parts):
        return parts
    sides = [(0, 0) * (part.ndim - 2) + (0, most - part.shape[1]) for part in parts]
    return [F.pad(part, side, value=value) for part, side in zip(parts, sides, strict=True)]


def ragged(parts: list[Tensor]) -> bool:
    """Whether rows of several shapes are among them."""
    return len({part.shape[1:] for part in parts}) > 1


def _not_finite(draw: int, what: str) -> NonFiniteError:
    return NonFiniteError(
        f"draw {draw} has {what}; lower the posterior's scale, or look at the training run."
    )


def _information(task: Task, averages: dict[str, Tensor]) -> dict[str, Tensor]:
    """Entropy of the average, and its excess over the average entropy: the mutual information."""
    if "probs" not in averages or "expected_entropy" not in averages:
        return {}
    probs = averages["probs"]
    entropy = task.entropy(probs)
    information = (entropy - averages["expected_entropy"]).clamp_min(0)  # negative by rounding
    return {"entropy": entropy, "mutual_information": information}


def _in_units(
    task: Regression, averages: dict[str, Tensor], target: Tensor | None
) -> dict[str, Tensor | None]:
    mean, variance = averages["mean"], averages["variance"]
    shift, std = task.units(mean)
    return {
        "mean": mean * std + shift,
        "variance": variance * std**2,
        "targets": None if target is None else target.double() * std + shift,
    }
