"""The loss near a weight vector: values and gradients over the same examples, counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lowland.core import EvalOptions, LossSurface, Point
from lowland.core.data import ReplayableLoader
from lowland.core.inner import inner
from lowland.curvature.rescaling import FACTORS, find_rescaling
from lowland.errors import NonFiniteError
from lowland.evaluate.engine import Evaluation
from lowland.landscape.point_metrics import LossSink, Row, default_metrics
from lowland.progress import Report


class Objective:
    """L(w + d) as a function of the displacement d, by one BatchNorm policy.

    Args:
        w: (P,), or a `Point`; its statistics are estimated anew at each displacement unless the
            options have `batchnorm="frozen"`.
        loader: other examples than the surface's. report: called as (evaluations, None).

    Attributes:
        loss, gradient: at w itself, and `gradient_norm`.
        evaluations: of the loss, with or without a gradient. nonfinite: how many were NaN or
            infinite; such a loss counts as infinite.

    Raises:
        NonFiniteError: no finite loss at w.
    """

    def __init__(
        self,
        surface: LossSurface,
        w: Tensor | Point,
        *,
        loader: Iterable[Any] | None = None,
        options: EvalOptions | None = None,
        report: Report = lambda done, total: None,
    ) -> None:
        self.surface, self.options, self.report = surface, options or surface.options, report
        point = surface.point(w)
        # a plain Point: estimated statistics are those of w alone, and not of w + d
        self.point = Point(point.weights.detach(), point.buffers)
        self.data = surface.replayable(loader, count=self.options.count).cached()
        self.evaluations = self.nonfinite = 0
        self.loss, self.gradient = self.value_and_grad(torch.zeros(()).to(self.weights))
        if not math.isfinite(self.loss):
            raise NonFiniteError(
                "the loss at these weights is NaN or infinite, and its rise cannot be measured; "
                "take weights of a run that converged."
            )
        self.gradient_norm = float(inner(self.gradient, self.gradient).sqrt())

    @property
    def weights(self) -> Tensor:
        """w, (P,)."""
        return self.point.weights

    @property
    def batchnorm(self) -> str:
        """The policy of BatchNorm statistics, "none" for models without any."""
        return self.options.batchnorm if self.surface.has_batchnorm else "none"

    @property
    def examples(self) -> int:
        """How many examples the loss is over."""
        return self.data.num_examples or 0

    def rescaled(self) -> Iterator[Objective]:
        """The same around weights of the same function: one layer multiplied by each of `FACTORS`
        and the next divided by it. Nothing where the model has no such layers."""
        buffers = self.surface.buffers_for(self.point, self.options)
        rescaling = find_rescaling(self.surface, Point(self.weights, buffers), self.data.first())
        if rescaling is None:
            return
        layout, report = self.surface.layout, self.report
        for factor in FACTORS:
            point = Point(rescaling.apply(layout, self.weights, factor), self.point.buffers)
            near = Objective(
                self.surface,
                point,
                loader=self.data,
                options=self.options,
                report=partial(_report_more, report, self.evaluations),
            )
            yield near
            self.evaluations += near.evaluations

    def value(self, displacement: Tensor) -> float:
        """L(w + d)."""
        batchnorm = self.options.batchnorm
        point = self._displaced_point(displacement)
        return self._count(float(self.surface(point, loader=self.data, batchnorm=batchnorm)))

    def value_and_grad(self, displacement: Tensor) -> tuple[float, Tensor]:
        """L(w + d) and its gradient (P,)."""
        batchnorm = self.options.batchnorm
        value, gradient = self.surface.value_and_grad(
            self._displaced_point(displacement), loader=self.data, batchnorm=batchnorm
        )
        return self._count(float(value)), gradient

    def rows(
        self,
        displacements: Iterable[Tensor],
        total: int,
        *,
        test_data: ReplayableLoader | None = None,
    ) -> list[Row]:
        """The loss, and error or rmse, for many displacements, which are not held: by the
        evaluation engine. Those on test data have names that begin with test_."""
        data = {"": self.data} | ({} if test_data is None else {"test_": test_data})
        names = default_metrics(self.surface.task)
        sinks = {prefix: LossSink(self.surface.task, names) for prefix in data}
        rows: list[Row] = []

        def collect(first: int, n: int) -> None:
            for i in range(n):
                row = {p + name: v for p, sink in sinks.items() for name, v in sink.rows[i].items()}
                rows.append(row | {"loss": self._count(row["loss"])})

        options = replace(self.options, count=None)  # each loader has its own count
        passes = [(loader, sinks[prefix]) for prefix, loader in data.items()]
        evaluation = Evaluation(self.surface, passes, options, total=total)
        evaluation.run(map(self._displaced_point, displacements), after=collect)
        return rows

    def _displaced_point(self, displacement: Tensor) -> Point:
        return Point(self.weights + displacement, self.point.buffers)

    def _count(self, loss: float) -> float:
        self.evaluations += 1
        self.report(self.evaluations, None)
        if math.isfinite(loss):
            return loss
        self.nonfinite += 1
        return math.inf


def _report_more(report: Report, before: int, done: int, total: int | None) -> None:
    report(before + done, total)
