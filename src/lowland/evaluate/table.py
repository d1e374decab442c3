"""Figures for each of many weight vectors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Unpack

import torch
from torch import Tensor

from lowland.core import LossSurface, Task
from lowland.core.options import EvalKeywords
from lowland.errors import DataError
from lowland.evaluate.batch_groups import MOST
from lowland.evaluate.engine import Evaluation
from lowland.evaluate.model_average import Average
from lowland.evaluate.nll import nll_per_item, resolve_task, vmap_points
from lowland.evaluate.predictive_builder import Summary, by_items
from lowland.evaluate.weights import iter_weights
from lowland.keywords import hinted
from lowland.metrics import metric_names
from lowland.progress import Progress
from lowland.records import Table


@hinted
def evaluate(
    surface: LossSurface,
    weights: Any,
    loader: Iterable[Any] | None = None,
    *,
    samples: int | None = None,
    seed: int = 0,
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> Table:
    """A row of figures for each weight vector: loss, nll, error or rmse, ece, brier.

    Args:
        weights: (P,), (n, P), a posterior (its members, or `samples` draws) or any iterable of
            (P,), which is never held as a whole.
        loader: None: the surface's own rows. The others: see `predict`.

    Returns:
        A `Table` of float64 columns (n,). `loss` is L(w) over the loader; `nll` the same in the
        target's own units. A loss that is not finite stays so.

    >>> from torch import nn
    >>> from lowland.core import Classification
    >>> rows = [(torch.ones(1, 1), torch.tensor([0]))]
    >>> surface = LossSurface(nn.Linear(1, 2, bias=False), Classification(), rows)
    >>> table = evaluate(surface, torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    >>> [round(loss, 4) for loss in table.loss.tolist()]
    [0.6931, 0.3133]
    """
    points, total = iter_weights(surface, weights, samples, seed)
    sink = TableSink(surface.task)
    how = surface.options.override(**options)
    Evaluation(surface, [(loader, sink)], how, total=total).run(points, progress=progress)
    return Table.from_rows(sink.rows)


class TableSink:
    """A `Sink` that makes a row of figures of each point."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.holds_examples = not by_items(task)
        self.rows: list[dict[str, float]] = []
        self._summaries: list[Summary] = []
        self._averages: list[Average] = []
        self._first = 0  # of the batches that the averages hold
        self._held = 0  # bytes of outputs that they are of

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        if target is None:
            raise DataError("the rows have no targets to evaluate with; predict takes such rows.")
        if index == 0:
            self.task = resolve_task(self.task, outputs, target)
            self._summaries = [Summary() for _ in outputs]
        if not self._averages:
            self._averages, self._first = [Average(self.task) for _ in outputs], index
        log_probs = -nll_per_item(self.task, outputs, target)
        statistics = vmap_points(self.task.statistics, outputs)
        for i, average in enumerate(self._averages):
            one = slice(i, i + 1)
            mine = {name: values[one] for name, values in statistics.items()}
            average.take(index - self._first, mine, log_probs[one], target)
        self._held += outputs.nbytes
        if self._held > MOST and not self.holds_examples:
            self._summarise()

    def _summarise(self) -> None:
        for average, summary in zip(self._averages, self._summaries, strict=True):
            average.samples = 1  # not by `end`, which refuses a loss that is not finite
            summary.add(average)
        self._averages, self._held = [], 0

    def end(self, first: int, n: int) -> None:
        if self._averages:
            self._summarise()
        for summary in self._summaries:
            log_prob = summary.log_prob()
            assert log_prob is not None
            row = {"loss": -float(log_prob.mean(dtype=torch.float64))}
            # columns that are there whatever comes: a loss that is not finite leaves them NaN
            row["nll"] = row["loss"]
            found = {n: math.nan for n in metric_names(self.task.kind) if n != "nll"}
            if math.isfinite(row["loss"]):
                found |= summary.fields()["metric_values"]
            if "accuracy" in found:
                found["error"] = 1 - found["accuracy"]
            self.rows.append(row | found)
        self._summaries = []
