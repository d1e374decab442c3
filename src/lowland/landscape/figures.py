"""What is measured at each point: sinks of the engine that make a row of figures of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from lowland.core import Classification, EvalOptions, LossSurface, Point, Regression, Task
from lowland.core.layout import inner
from lowland.errors import ConfigError, DataError
from lowland.evaluate.engine import Sink
from lowland.evaluate.nll import nll_per_item, resolve_task, vmap_points
from lowland.evaluate.table import TableSink

Row = dict[str, float]
Function = Callable[[LossSurface, Point], Mapping[str, Any]]
Metrics = Sequence[str | Function]
GRADIENT = "gradient_norm"
TOGETHER = ("nll_together", "error_together")


class Figures(Sink, Protocol):
    """A sink that has a row of figures for each point of the last chunk."""

    rows: list[Row]


def default_metrics(task: Task) -> Metrics:
    """loss, and the error of a classifier or the rmse of a regression."""
    if isinstance(task, Classification):
        return ("loss", "error")
    return ("loss", "rmse") if isinstance(task, Regression) else ("loss",)


class Likelihood:
    """loss, nll, and error or rmse, of each point: sums alone, nothing is held of a row."""

    holds_examples = False

    def __init__(self, task: Task, names: Sequence[str]) -> None:
        self.task = task
        self.second = next((name for name in names if name not in ("loss", "nll")), None)
        self.rows: list[Row] = []
        self._items = self._places = 0
        self._loss = self._wrong = torch.zeros(())

    @staticmethod
    def covers(task: Task, names: Sequence[str]) -> bool:
        """Whether these figures need nothing else."""
        # the NLL of a regression is in the target's own units
        more = {Classification: {"nll", "error"}, Regression: {"rmse"}}.get(type(task), set())
        return set(names) <= {"loss"} | more

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        if target is None:
            raise DataError("the rows have no targets: a surface is drawn of labelled rows.")
        if index == 0:
            self.task = resolve_task(self.task, outputs, target)
            self._items = self._places = 0
            self._loss = self._wrong = torch.zeros(
                len(outputs), dtype=torch.float64, device=outputs.device
            )
        nll = nll_per_item(self.task, outputs, target)  # (n, items), 0 for those left out
        mask = self.task.valid(target)
        self._items += nll.shape[1] if mask is None else int(mask.sum())
        self._loss = self._loss + nll.sum(1, dtype=torch.float64)
        if self.second == "error":
            wrong = misses(self.task, outputs, target)
            self._places += wrong.shape[1]
            self._wrong = self._wrong + wrong.sum(1)
        elif self.second == "rmse":
            assert isinstance(self.task, Regression)
            errors = vmap_points(lambda out: self.task.moments(out)[0] - target, outputs)  # type: ignore[attr-defined]
            errors = errors.double() * self.task.units(target)[1]
            self._places += errors[0].numel()
            self._wrong = self._wrong + errors.square().flatten(1).sum(1)

    def end(self, first: int, n: int) -> None:
        loss = (self._loss / self._items).tolist()
        self.rows = [{"loss": value, "nll": value} for value in loss]
        if self.second is not None:
            second = self._wrong / self._places
            second = second.sqrt() if self.second == "rmse" else second
            for row, value in zip(self.rows, second.tolist(), strict=True):
                # predictions of a network whose loss is not a number say nothing
                row[self.second] = value if math.isfinite(row["loss"]) else math.nan


class Whole(TableSink):
    """All figures that `evaluate` gives, of each point of a chunk."""

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        if index == 0:
            self.rows = []
        super().add(index, outputs, target)


class Together:
    """NLL and error of the average of fixed networks' probabilities and each point's.

    Networks that are added before `fix` is called are the fixed ones: their sums are held.
    """

    holds_examples = False

    def __init__(self, task: Task) -> None:
        self.task = task
        self.rows: list[Row] = []
        self.fixed = 0  # networks
        self._logs: list[Tensor] = []  # by batch: logsumexp of their log-likelihoods, (items,)
        self._probs: list[Tensor] = []  # by batch: sums of their probabilities
        self._fixing = True
        self._items = self._places = 0
        self._nll = self._wrong = torch.zeros(())
        self._shift = 0.0

    def fix(self) -> None:
        """What was added so far are the fixed networks; points follow."""
        self._fixing = False

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        if target is None:
            raise DataError("the rows have no targets: a surface is drawn of labelled rows.")
        self.task = resolve_task(self.task, outputs, target)
        logs = -nll_per_item(self.task, outputs, target)  # (n, items)
        probs = None
        if isinstance(self.task, Classification):
            probs = vmap_points(self.task.probs, outputs)  # (n, B, C, ...)
        if self._fixing:
            self._take(index, logs.logsumexp(0), None if probs is None else probs.sum(0))
            return
        if index == 0:
            self._items = self._places = 0
            self._nll = self._wrong = torch.zeros(
                len(outputs), dtype=torch.float64, device=outputs.device
            )
            if isinstance(self.task, Regression):
                self._shift = self.task.log_scale(target)
        mixed = torch.logaddexp(logs, self._logs[index]) - math.log(self.fixed + 1)
        mask = self.task.valid(target)
        mixed = mixed if mask is None else mixed[:, mask]
        self._items += mixed.shape[1]
        self._nll = self._nll - mixed.sum(1, dtype=torch.float64)
        if probs is not None:
            assert isinstance(self.task, Classification)
            wrong = _misses(self.task, probs + self._probs[index], target, self.fixed + 1)
            self._places += wrong.shape[1]
            self._wrong = self._wrong + wrong.sum(1)

    def _take(self, index: int, log: Tensor, probs: Tensor | None) -> None:
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
            for row, value in zip(self.rows, (self._wrong / self._places).tolist(), strict=True):
                row[TOGETHER[1]] = value if math.isfinite(row[TOGETHER[0]]) else math.nan


def misses(task: Task, outputs: Tensor, target: Tensor) -> Tensor:
    """Which items are wrong, (n, items), for logits (n, B, ...) of a classifier."""
    assert isinstance(task, Classification)
    if task.form == "multiclass":
        return _misses(task, vmap_points(task.logits, outputs), target, 1)
    return _misses(task, vmap_points(task.probs, outputs), target, 1)


def _misses(task: Classification, scores: Tensor, target: Tensor, total: int) -> Tensor:
    """The same from scores, the largest of which is chosen; `total`: what probabilities sum to."""
    if task.form == "multilabel":
        return ((scores > total / 2) != (target > 0.5)).flatten(1)
    wrong = scores.argmax(2).flatten(1) != target.reshape(-1).long()
    mask = task.valid(target)
    return wrong if mask is None else wrong[:, mask]


class JointSink:
    """A sink that joins the rows of several sinks of the same outputs."""

    def __init__(self, parts: Sequence[Figures]) -> None:
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
        metrics: see `scan`. options: those that points are evaluated with.

    Attributes:
        names: of all metrics; of functions from the first point on. functions: those that make
            metrics of (surface, point).
    """

    def __init__(
        self, surface: LossSurface, metrics: Metrics | Function | None, options: EvalOptions
    ) -> None:
        self.surface, self.options = surface, options
        chosen: Any = default_metrics(surface.task) if metrics is None else metrics
        if isinstance(chosen, str) or callable(chosen):
            chosen = (chosen,)
        self.names = [metric for metric in chosen if isinstance(metric, str)]
        self.functions = [metric for metric in chosen if not isinstance(metric, str)]

    def sink(self) -> Figures:
        """What makes those of outputs: sums alone where these are enough."""
        task, names = self.surface.task, [name for name in self.names if name != GRADIENT]
        return Likelihood(task, names) if Likelihood.covers(task, names) else Whole(task)

    def __call__(self, row: Row, point: Callable[[], Point]) -> Row:
        """The metrics of one point: `row` of its outputs; `point` gives its weights again."""
        if GRADIENT in self.names or self.functions:
            row = row | self._of_weights(self.surface.point(point()))
        for name in self.names:
            if name not in row:
                known = ", ".join(dict.fromkeys([*row, GRADIENT]))
                raise ConfigError(
                    f"metrics: {name!r} is none of {known}; for another write a function of "
                    "(surface, point) that gives {name: number}."
                )
        return {name: row[name] for name in self.names}

    def _of_weights(self, point: Point) -> Row:
        found: Row = {}
        if GRADIENT in self.names:
            _, gradient = self.surface.value_and_grad(point, batchnorm=self.options.batchnorm)
            found[GRADIENT] = float(inner(gradient, gradient).sqrt())
        for function in self.functions:
            with torch.enable_grad():
                values = function(self.surface, point)
            if not isinstance(values, Mapping):
                raise ConfigError(
                    f"metrics: expected {{name: number}} of {name_of(function)}, got "
                    f"{type(values).__name__}."
                )
            found |= {name: float(value) for name, value in values.items()}
            self.names += [name for name in values if name not in self.names]
        return found


def name_of(function: Function) -> str:
    """What a function is called in messages and files."""
    return getattr(function, "__qualname__", type(function).__name__)
