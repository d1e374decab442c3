"""A table of metrics, one row for each weight vector."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Unpack

import torch
from torch import Tensor

from lowland.core import LossSurface, Task
from lowland.core.options import EvalKeywords
from lowland.errors import DataError
from lowland.evaluate.batch_groups import MAX_BYTES
from lowland.evaluate.engine import Evaluation
from lowland.evaluate.model_average import ModelAverage
from lowland.evaluate.nll import nll_per_item, resolve_task, vmap_points
from lowland.evaluate.predictive_builder import PredictiveBuilder, is_per_item
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
    """Metrics of each weight vector, a row each: loss, nll, error or rmse, ece, brier.

    Args:
        weights: (P,), (n, P), a posterior (its members, or `samples` draws) or any iterable of
            (P,), which is never held as a whole.
        loader: labelled examples; None: the surface's own.
        samples, seed, progress, options: see `predict`.

    Returns:
        A `Table` of float64 columns (n,). `loss` is L(w) over the loader; `nll` the same in the
        target's own units. Where the loss is not finite, neither is nll, and the others are NaN.

    Raises:
        DataError: examples without targets, labels out of range. LayoutError: weights of another
            model.

    >>> from torch import nn
    >>> from lowland.core import Classification
    >>> data = [(torch.ones(1, 1), torch.tensor([0]))]
    >>> surface = LossSurface(nn.Linear(1, 2, bias=False), Classification(), data)
    >>> table = evaluate(surface, torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    >>> [round(loss, 4) for loss in table.loss.tolist()]
    [0.6931, 0.3133]
    """
    points, total = iter_weights(surface, weights, samples, seed)
    sink = TableSink(surface.task)
    evaluation = Evaluation(
        surface, [(loader, sink)], surface.options.override(**options), total=total
    )
    evaluation.run(points, progress=progress)
    return Table.from_rows(sink.rows)


class TableSink:
    """A `Sink` that makes a row of metrics of each point."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.holds_examples = not is_per_item(task)
        self.rows: list[dict[str, float]] = []
        self._builders: list[PredictiveBuilder] = []
        self._averages: list[ModelAverage] = []
        self._first = 0  # index of the first batch in the averages
        self._output_bytes = 0  # of the outputs in the averages

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        if target is None:
            raise DataError(
                "the examples have no targets to evaluate with; use predict for such examples."
            )
        if index == 0:
            self.task = resolve_task(self.task, outputs, target)
            self._builders = [PredictiveBuilder() for _ in outputs]
        if not self._averages:
            self._averages, self._first = [ModelAverage(self.task) for _ in outputs], index
        log_probs = -nll_per_item(self.task, outputs, target)
        statistics = vmap_points(self.task.statistics, outputs)
        for i, average in enumerate(self._averages):
            one = slice(i, i + 1)
            own = {name: values[one] for name, values in statistics.items()}
            average.add_statistics(index - self._first, own, log_probs[one], target)
        self._output_bytes += outputs.nbytes
        if self._output_bytes > MAX_BYTES and not self.holds_examples:
            self._collect()

    def _collect(self) -> None:
        for average, builder in zip(self._averages, self._builders, strict=True):
            average.samples = 1  # `end` would raise for a loss that is not finite
            builder.add(average)
        self._averages, self._output_bytes = [], 0

    def end(self, first: int, n: int) -> None:
        if self._averages:
            self._collect()
        for builder in self._builders:
            log_prob = builder.log_prob()
            assert log_prob is not None
            row = {"loss": -float(log_prob.mean(dtype=torch.float64))}
            # every row has all columns: they are NaN where the loss is not finite
            row["nll"] = row["loss"]
            values = {n: math.nan for n in metric_names(self.task.kind) if n != "nll"}
            if math.isfinite(row["loss"]):
                values |= builder.fields()["metric_values"]
            if "accuracy" in values:
                values["error"] = 1 - values["accuracy"]
            self.rows.append(row | values)
        self._builders = []
