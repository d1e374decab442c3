"""What is left of averages when their batches are complete: a `Predictive`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lowland.core import Classification, LanguageModeling, Regression, Task
from lowland.evaluate.model_average import Average, BatchSums, require_alike
from lowland.records import Predictive
from lowland.scoring.metric_sums import (
    ClassificationSums,
    labelled_fields,
    log_scale,
    of_likelihood,
)

Axis = Callable[[Sequence[int]], int]  # of a shape


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
                fields["metric_values"] = of_likelihood(task, log_prob)
            if self.keep in ("probs", "target"):
                fields["target_log_prob"] = log_prob - shift
        if self.keep == "probs":
            fields |= {"probs": means.get("probs"), "targets": target}
            if self._log_probs:
                fields["log_probs"] = joined(self._logarithms(), _axis(task, "probs"))
            if isinstance(task, Regression):
                fields |= _in_units(task, means, target)
        return fields

    def _logarithms(self) -> list[Tensor]:
        """Of probabilities, by batch."""
        logs = [
            self._log_probs[i] if i in self._log_probs else probs.log()
            for i, probs in enumerate(self._means["probs"])
        ]
        return _padded(logs, -math.inf)

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
    more = torch.tensor(values, dtype=torch.float64)
    return sums + more if len(sums) else more


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
