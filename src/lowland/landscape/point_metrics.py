"""The metrics of each point: sinks of the engine that compute a row of metrics a point."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from lowland.core import Classification, EvalOptions, LossSurface, Point, Regression, Task
from lowland.core.inner import inner
from lowland.errors import ConfigError, DataError
from lowland.evaluate.engine import Sink
from lowland.evaluate.nll import nll_per_item, resolve_task, vmap_points
from lowland.evaluate.table import TableSink

Row = dict[str, float]
MetricFunction = Callable[[LossSurface, Point], Mapping[str, Any]]
Metrics = Sequence[str | MetricFunction]
GRADIENT_NORM = "gradient_norm"
TOGETHER = ("nll_together", "error_together")


class MetricSink(Sink, Protocol):
    """A sink with a row of metrics for each point of the last chunk."""

    rows: list[Row]


def default_metrics(task: Task) -> tuple[str, ...]:
    """loss, and the error of a classifier or the rmse of a regression."""
    if isinstance(task, Classification):
        return ("loss", "error")
    return ("loss", "rmse") if isinstance(task, Regression) else ("loss",)


class LossSink:
    """loss, nll, and error or rmse, of each point, by sums over examples."""

    holds_examples = False

    def __init__(self, task: Task, names: Sequence[str]) -> None:
        self.task = task
        self.second = next((name for name in names if name not in ("loss", "nll")), None)
        self.rows: list[Row] = []
        self._items = self._places = 0
        self._loss = self._errors = torch.zeros(())

    @staticmethod
    def covers(task: Task, names: Sequence[str]) -> bool:
        """Whether this sink computes all these metrics."""
        # the NLL of a regression is in the target's own units
        more = {Classification: {"nll", "error"}, Regression: {"rmse"}}.get(type(task), set())
        return set(names) <= {"loss"} | more

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        if target is None:
            raise DataError("the examples have no targets; scan with labelled examples.")
        if index == 0:
            self.task = resolve_task(self.task, outputs, target)
            self._items = self._places = 0
            self._loss = self._errors = torch.zeros(
                len(outputs), dtype=torch.float64, device=outputs.device
            )
        nll = nll_per_item(self.task, outputs, target)  # (n, items), 0 for masked ones
        mask = self.task.valid(target)
        self._items += nll.shape[1] if mask is None else int(mask.sum())
        self._loss = self._loss + nll.sum(1, dtype=torch.float64)
        if self.second == "error":
            wrong = wrong_items(self.task, outputs, target)
            self._places += wrong.shape[1]
            self._errors = self._errors + wrong.sum(1)
        elif self.second == "rmse":
            assert isinstance(self.task, Regression)
            errors = vmap_points(lambda out: self.task.moments(out)[0] - target, outputs)  # type: ignore[attr-defined]
            errors = errors.double() * self.task.units(target)[1]
            self._places += errors[0].numel()
            self._errors = self._errors + errors.square().flatten(1).sum(1)

    def end(self, first: int, n: int) -> None:
        loss = (self._loss / self._items).tolist()
        self.rows = [{"loss": value, "nll": value} for value in loss]
        if self.second is not None:
            second = self._errors / self._places
            second = second.sqrt() if self.second == "rmse" else second
            for row, value in zip(self.rows, second.tolist(), strict=True):
                # an error beside a loss of NaN has no meaning
                row[self.second] = value if math.isfinite(row["loss"]) else math.nan


class AllMetricsSink(TableSink):
    """All metrics that `evaluate` computes, of each point of a chunk."""

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        if index == 0:
            self.rows = []
        super().add(index, outputs, target)


class JointPredictionSink:
    """NLL and error of the average of fixed networks' probabilities and each point's.

    Networks added before `fix` is called are the fixed ones.
    """

    holds_examples = False

    def __init__(self, task: Task) -> None:
        self.task = task
        self.rows: list[Row] = []
        self.fixed = 0  # number of fixed networks
        self._logs: list[Tensor] = []  # by batch: logsumexp of their log-likelihoods, (items,)
        self._probs: list[Tensor] = []  # by batch: sums of their probabilities
        self._fixing = True
        self._items = self._places = 0
        self._nll = self._errors = torch.zeros(())
        self._shift = 0.0

    def fix(self) -> None:
        """Ends the fixed networks; the points follow."""
        self._fixing = False

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        if target is None:
            raise DataError("the examples have no targets; scan with labelled examples.")
        self.task = resolve_task(self.task, outputs, target)
        logs = -nll_per_item(self.task, outputs, target)  # (n, items)
        probs = None
        if isinstance(self.task, Classification):
            probs = vmap_points(self.task.probs, outputs)  # (n, B, C, ...)
        if self._fixing:
            self._add_fixed(index, logs.logsumexp(0), None if probs is None else probs.sum(0))
            return
        if index == 0:
            self._items = self._places = 0
            self._nll = self._errors = torch.zeros(
                len(outputs), dtype=torch.float64, device=outputs.device
            )
            if isinstance(self.task, Regression):
                self._shift = self.task.log_scale(target)
        log_mean = torch.logaddexp(logs, self._logs[index]) - math.log(self.fixed + 1)
        mask = self.task.valid(target)
        log_mean = log_mean if mask is None else log_mean[:, mask]
        self._items += log_mean.shape[1]
        self._nll = self._nll - log_mean.sum(1, dtype=torch.float64)
        if probs is not None:
            assert isinstance(self.task, Classification)
            wrong = _wrong_items(self.task, probs + self._probs[index], target, self.fixed + 1)
            self._places += wrong.shape[1]
            self._errors = self._errors + wrong.sum(1)

    def _add_fixed(self, index: int, log: Tensor, probs: Tensor | None) -> None:
        if index == len(self._logs):
            self._logs.append(log)
            if probs is not None:
                self._probs.append(probs)
            return
        self._logs[index] = torch.logaddexp(self._logs[index], log)
        if probs is not None:
            self._probs[index] = self._probs[index] + probs

    def end(self, first: int, n: int) -> None:
        if self._fixing:
            self.fixed += n
            return
        nll = (self._nll / self._items + self._shift).tolist()
        self.rows = [{TOGETHER[0]: value} for value in nll]
        if self._places:
            for row, value in zip(self.rows, (self._errors / self._places).tolist(), strict=True):
                row[TOGETHER[1]] = value if math.isfinite(row[TOGETHER[0]]) else math.nan


def wrong_items(task: Task, outputs: Tensor, target: Tensor) -> Tensor:
    """Which items are misclassified, (n, items), for outputs (n, B, ...)."""
    assert isinstance(task, Classification)
    if task.form == "multiclass":
        return _wrong_items(task, vmap_points(task.logits, outputs), target, 1)
    return _wrong_items(task, vmap_points(task.probs, outputs), target, 1)


def _wrong_items(task: Classification, scores: Tensor, target: Tensor, total: int) -> Tensor:
    """The same from scores; `total`: the sum of the probabilities."""
    if task.form == "multilabel":
        return ((scores > total / 2) != (target > 0.5)).flatten(1)
    wrong = scores.argmax(2).flatten(1) != target.reshape(-1).long()
    mask = task.valid(target)
    return wrong if mask is None else wrong[:, mask]


class CombinedSink:
    """Several sinks as one, whose rows are theirs merged."""

    def __init__(self, parts: Sequence[MetricSink]) -> None:
        self.parts = parts
        self.holds_examples = any(part.holds_examples for part in parts)
        self.rows: list[Row] = []

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        for part in self.parts:
            part.add(index, outputs, target)

    def end(self, first: int, n: int) -> None:
        self.rows = [{} for _ in range(n)]
        for part in self.parts:
            part.end(first, n)
            for row, more in zip(self.rows, part.rows, strict=True):
                row |= more


class PointMetrics:
    """The metrics of a scan: of a network's outputs, of its gradient, by functions.

    Args:
        metrics: see `scan`. options: how points are evaluated.

    Attributes:
        names: all metrics' names; those of functions are added at the first point.
        functions: functions of (surface, point) that return metrics.
    """

    def __init__(
        self, surface: LossSurface, metrics: Metrics | MetricFunction | None, options: EvalOptions
    ) -> None:
        self.surface, self.options = surface, options
        specs: Any = default_metrics(surface.task) if metrics is None else metrics
        if isinstance(specs, str) or callable(specs):
            specs = (specs,)
        self.names = [metric for metric in specs if isinstance(metric, str)]
        self.functions = [metric for metric in specs if not isinstance(metric, str)]

    def sink(self) -> MetricSink:
        """The sink for the metrics of outputs: sums alone where these are enough."""
        task, names = self.surface.task, [name for name in self.names if name != GRADIENT_NORM]
        return LossSink(task, names) if LossSink.covers(task, names) else AllMetricsSink(task)

    def __call__(self, row: Row, point: Callable[[], Point]) -> Row:
        """The metrics of a point: `row` from its outputs; `point` returns its weights."""
        if GRADIENT_NORM in self.names or self.functions:
            row = row | self._weight_metrics(self.surface.point(point()))
        for name in self.names:
            if name not in row:
                available = ", ".join(dict.fromkeys([*row, GRADIENT_NORM]))
                raise ConfigError(
                    f"metrics: {name!r} is none of {available}; for others pass a function of "
                    "(surface, point) that returns {name: number}."
                )
        return {name: row[name] for name in self.names}

    def _weight_metrics(self, point: Point) -> Row:
        row: Row = {}
        if GRADIENT_NORM in self.names:
            _, gradient = self.surface.value_and_grad(point, batchnorm=self.options.batchnorm)
            row[GRADIENT_NORM] = float(inner(gradient, gradient).sqrt())
        for function in self.functions:
            with torch.enable_grad():
                values = function(self.surface, point)
            if not isinstance(values, Mapping):
                raise ConfigError(
                    f"metrics: expected {{name: number}} from {name_of(function)}, got "
                    f"{type(values).__name__}."
                )
            row |= {name: float(value) for name, value in values.items()}
            self.names += [name for name in values if name not in self.names]
        return row


def name_of(function: MetricFunction) -> str:
    """A function's name in messages and files."""
    return getattr(function, "__qualname__", type(function).__name__)
