"""From the complete averages of batches to a `Predictive`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lowland.core import Classification, LanguageModeling, Regression, Task
from lowland.evaluate.model_average import BatchSums, ModelAverage, require_same_labelling
from lowland.records import Predictive
from lowland.scoring.metric_sums import (
    ClassificationSums,
    labelled_fields,
    likelihood_metrics,
    log_scale,
)

Axis = Callable[[Sequence[int]], int]  # from a shape to one of its axes


def is_per_item(task: Task) -> bool:
    """Whether metrics are sums over items, so that no batch's average is needed with another's."""
    is_classifier = isinstance(task, Classification | LanguageModeling)
    return is_classifier and type(task).metrics is Task.metrics


class PredictiveBuilder:
    """Builds a `Predictive` of the complete averages of groups of batches.

    It holds a few numbers per item, and averages of probabilities for `keep="probs"` or where the
    task's metrics need those of all batches.
    """

    def __init__(self, keep: str = "none") -> None:
        self.keep = keep
        self.samples = self._items = self._label_count = 0
        self._task: Task | None = None
        self._sums = ClassificationSums()
        self._target_log_prob: list[Tensor] = []  # by batch
        self._means: dict[str, list[Tensor]] = {}  # by name and batch
        self._information: dict[str, list[Tensor]] = {}
        self._log_probs: dict[int, Tensor] = {}  # by index of the batch, where there are any
        self._targets: list[Any] = []
        # (S,), of the average of the first s samples: log-likelihoods, wrong labels
        self._log_likelihoods = torch.zeros(0, dtype=torch.float64)
        self._wrong = torch.zeros(0, dtype=torch.float64)

    def add(self, average: ModelAverage) -> None:
        """Takes the batches of an average; their sums become means."""
        self._task, self.samples = average.task, average.samples
        for batch in average.batches:
            if self._targets:
                require_same_labelling(self._targets[0], batch.target)
            self._add_batch(average.task, batch)
        self._items += average.items
        self._log_likelihoods = _add(self._log_likelihoods, average.log_probs)
        if average.errors is not None:
            self._wrong = _add(self._wrong, average.errors.wrong)
            self._label_count += average.errors.count
        average.batches = []

    def _add_batch(self, task: Task, batch: BatchSums) -> None:
        means, log_prob, target = batch.means(self.samples), batch.log_prob(self.samples), None
        if isinstance(batch.target, Tensor):
            target = batch.target
        if "probs" in means and target is not None:
            self._sums.add(task, means["probs"], target)
        if log_prob is not None:
            self._target_log_prob.append(log_prob.cpu())
        if self.keep in ("probs", "target"):
            _append(self._information, _information(task, means))
        if batch.log_probs is not None:
            index = len(self._targets)
            self._log_probs[index] = (batch.log_probs - math.log(self.samples)).cpu()
        if self.keep == "probs" or not is_per_item(task):
            _append(self._means, means)
            self._targets.append(batch.target if target is None else target.cpu())
        else:
            self._targets.append(None if batch.target is None else ())  # there was one

    def log_prob(self) -> Tensor | None:
        """Log of the mean likelihood of the items that count; None without targets."""
        return torch.cat(self._target_log_prob) if self._target_log_prob else None

    def predictive(self) -> Predictive:
        """The record of the batches so far."""
        assert self._task is not None
        task = self._task.to_dict()
        return Predictive(self._task.kind, self.samples, task=task, **self.fields())

    def fields(self) -> dict[str, Any]:
        """The fields of the record."""
        task = self._task
        assert task is not None
        if "probs" in self._means:
            self._means["probs"] = _pad_classes(self._means["probs"])
        means = {name: concatenate(parts, _axis(task, name)) for name, parts in self._means.items()}
        target, log_prob = self._target(task), self.log_prob()
        fields: dict[str, Any] = {n: concatenate(parts) for n, parts in self._information.items()}
        if log_prob is not None:
            log_unit = log_scale(task, means)
            counts = torch.arange(1, self.samples + 1, dtype=torch.float64)
            fields["nll_by_samples"] = counts.log() - self._log_likelihoods / self._items + log_unit
            if len(self._wrong):
                fields["error_by_samples"] = self._wrong / max(self._label_count, 1)
            if is_per_item(task) or (means and target is not None):
                fields |= labelled_fields(task, means, log_prob, target, self._sums)
            else:
                fields["metric_values"] = likelihood_metrics(task, log_prob)
            if self.keep in ("probs", "target"):
                fields["target_log_prob"] = log_prob - log_unit
        if self.keep == "probs":
            fields |= {"probs": means.get("probs"), "targets": target}
            if self._log_probs:
                fields["log_probs"] = concatenate(self._all_log_probs(), _axis(task, "probs"))
            if isinstance(task, Regression):
                fields |= _in_units(task, means, target)
        return fields

    def _all_log_probs(self) -> list[Tensor]:
        """By batch: stored ones, or logarithms of the probabilities."""
        log_probs = [
            self._log_probs[i] if i in self._log_probs else probs.log()
            for i, probs in enumerate(self._means["probs"])
        ]
        return _pad_classes(log_probs, -math.inf)

    def _target(self, task: Task) -> Tensor | None:
        """The targets of all examples, where they are tensors and are held."""
        if not all(isinstance(target, Tensor) for target in self._targets):
            return None
        if not isinstance(task, Classification | Regression) and is_ragged(self._targets):
            return None
        return concatenate(self._targets, _axis(task, "targets"))


def _axis(task: Task, name: str) -> Axis | None:
    """The axis of classes or of target dimensions, beside those of examples and positions."""
    if isinstance(task, Regression):
        return task.axis
    return (lambda _: 1) if name == "probs" else None


def _append(lists: dict[str, list[Tensor]], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        lists.setdefault(name, []).append(value.cpu())


def _add(sums: Tensor, values: Sequence[float]) -> Tensor:
    """Sums (S,), which are empty at first."""
    tensor = torch.tensor(values, dtype=torch.float64)
    return sums + tensor if len(sums) else tensor


def concatenate(parts: list[Tensor], axis: Axis | None = None) -> Tensor:  # (N_i, ...) each
    """All examples; where image sizes differ between batches, all positions: (positions,), or
    (positions, C) with an axis of classes.

    >>> concatenate([torch.zeros(2, 4, 5), torch.zeros(1, 3, 3)]).shape
    torch.Size([49])
    """
    if not is_ragged(parts):
        return torch.cat(parts)
    if axis is None:
        return torch.cat([part.reshape(-1) for part in parts])
    class_last = [part.movedim(axis(part.shape), -1) for part in parts]
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in class_last])


def _pad_classes(parts: list[Tensor], value: float = 0.0) -> list[Tensor]:  # (N_i, C_i, ...)
    """Pads each batch to the most classes, where a class is a position in a text."""
    classes = max(part.shape[1] for part in parts)
    if all(part.shape[1] == classes for part in parts):
        return parts
    sides = [(0, 0) * (part.ndim - 2) + (0, classes - part.shape[1]) for part in parts]
    return [F.pad(part, side, value=value) for part, side in zip(parts, sides, strict=True)]


def is_ragged(parts: list[Tensor]) -> bool:
    """Whether examples differ in shape."""
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
