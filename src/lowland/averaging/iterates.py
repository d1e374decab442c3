"""Iterates beside their running average in weights and their running ensemble."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Unpack

import torch
from torch import Tensor

from lowland.core import Classification, LossSurface, Point, Regression, Task
from lowland.core.options import EvalKeywords
from lowland.evaluate.engine import Evaluation
from lowland.evaluate.model_average import ModelAverage
from lowland.evaluate.nll import vmap_points
from lowland.evaluate.predictive_builder import PredictiveBuilder
from lowland.evaluate.table import TableSink
from lowland.evaluate.weights import iter_weights
from lowland.progress import Progress
from lowland.records import IterateTable, Table
from lowland.scoring.error_curve import running_sums
from lowland.trajectory import SWA


def iterate_metrics(
    surface: LossSurface,
    iterates: Any,
    loader: Iterable[Any] | None = None,
    *,
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> IterateTable:
    r"""Error and NLL of iterate i, of the average of the weights 1 to i, and of the ensemble of the
    networks 1 to i.

    The observation behind SWA (Izmailov et al. 2018): iterates of a constant or cyclical learning
    rate are worse than \(w_\mathrm{SWA} = \frac1n \sum_i w_i\), whose predictions are near the
    ensemble's \(\frac1n \sum_i p(y|x, w_i)\). Each iterate and each average is one forward pass,
    with its own BatchNorm statistics, and the ensemble is computed from the same outputs.

    Args:
        iterates: a `Trajectory`, an `Ensemble`, (n, P), or an iterable of weights, in order.
        loader: labelled examples; None: the surface's own.
        progress, options: see `predict`.

    Raises:
        DataError: no iterates, or examples without targets. LayoutError: iterates of different
            networks, or of another one than the surface's. NonFiniteError: an iterate whose loss is
            NaN or infinite.

    >>> from torch import nn
    >>> data = [(torch.ones(2, 1), torch.tensor([0, 0]))]
    >>> surface = LossSurface(nn.Linear(1, 2, bias=False), Classification(), data)
    >>> print(iterate_metrics(surface, torch.tensor([[0.0, 2.0], [3.0, 0.0]])))
    iterate   error     nll  error_average  nll_average  error_ensemble  nll_ensemble
          1  1.0000  2.1269         1.0000       2.1269          1.0000        2.1269
          2  0.0000  0.0486         0.0000       0.4741          0.0000        0.6238
    """
    points, total = iter_weights(surface, iterates, None, 0)
    sink = _IterateSink(surface.task)
    evaluation = Evaluation(
        surface,
        [(loader, sink)],
        surface.options.override(**options),
        total=None if total is None else 2 * total,
    )
    evaluation.run(_with_averages(surface, points), progress=progress, label="iterates")
    return sink.result(getattr(iterates, "steps", None))


def _with_averages(surface: LossSurface, points: Iterable[Any]) -> Iterator[Point]:
    """Each iterate, and the average of those so far."""
    swa = SWA(surface.layout)
    for each in points:
        point = surface.point(each)
        swa.update(point)
        yield point
        yield Point(swa.mean.clone(), swa.buffers)


class _IterateSink:
    """A `Sink` for points that alternate, iterate and average: metrics of each, and of the running
    ensemble of the iterates."""

    def __init__(self, task: Task) -> None:
        self._table = TableSink(task)
        self.holds_examples = self._table.holds_examples
        keep = "none" if isinstance(task, Classification | Regression) else "nll"
        self._average = ModelAverage(task, keep=keep, errors=True)
        self._squares = _SquaredErrors(task) if isinstance(task, Regression) else None
        self._points = 0  # of the chunks that have ended

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        self._table.add(index, outputs, target)
        iterates = outputs[self._points % 2 :: 2]
        if not len(iterates):
            return
        self._average.add(index, iterates, target)
        if self._squares is not None:
            self._squares.add(index, iterates, target)

    def end(self, first: int, n: int) -> None:
        self._table.end(first, n)
        before, self._points = (first + 1) // 2, first + n
        iterates = (self._points + 1) // 2 - before
        if iterates:
            self._average.end(before, iterates)
            if self._squares is not None:
                self._squares.end()

    def result(self, steps: list[int] | None) -> IterateTable:
        """The table; `steps`: of the iterates."""
        table = Table.from_rows(self._table.rows).columns
        builder = PredictiveBuilder()
        builder.add(self._average)
        ensemble = builder.predictive()
        curves = {"error": ensemble.error_by_samples, "nll": ensemble.nll_by_samples}
        if self._squares is not None:
            curves = {"rmse": self._squares.rmse(), "nll": ensemble.nll_by_samples}
        curves = {name: curve for name, curve in curves.items() if curve is not None}

        count = (self._points + 1) // 2
        columns: dict[str, Tensor] = {"iterate": torch.arange(1, count + 1)}
        if steps is not None:
            columns["step"] = torch.tensor(steps)
        columns |= {name: table[name][::2] for name in curves}
        columns |= {f"{name}_average": table[name][1::2] for name in curves}
        return IterateTable(columns | {f"{n}_ensemble": curve for n, curve in curves.items()})


class _SquaredErrors:
    """Squared errors of the running mean of a regression's predictions, in the target's units."""

    def __init__(self, task: Regression) -> None:
        self.task = task
        self._sums: list[Tensor] = []  # of the iterates' means, (B, D) by batch
        self._before = 0  # iterates of the chunks that have ended
        self._chunk: list[Tensor] = []  # by batch: (n,) sums of squares
        self._squares: list[Tensor] = []  # by chunk
        self._count = 0

    def add(self, index: int, outputs: Tensor, target: Tensor) -> None:
        means = vmap_points(self.task.statistics, outputs)["mean"].double()
        seen = index < len(self._sums)
        sums = running_sums(self._sums[index] if seen else None, means)  # (n, B, D)
        if seen:
            self._sums[index] = sums[-1].clone()
        else:
            self._sums.append(sums[-1].clone())
            self._count += target.numel()
        counts = self._before + torch.arange(1, len(sums) + 1, device=sums.device)
        mean = sums / counts.reshape(-1, *[1] * (sums.ndim - 1))
        _, std = self.task.units(mean[0])
        self._chunk.append(((mean - target) * std).square().flatten(1).sum(1))

    def end(self) -> None:
        self._squares.append(torch.stack(self._chunk).sum(0))
        self._before += len(self._squares[-1])
        self._chunk = []

    def rmse(self) -> Tensor:
        """(n,), of the mean of the first i iterates."""
        return (torch.cat(self._squares) / self._count).sqrt().cpu()
