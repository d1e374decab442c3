"""A scan over a grid: its points, examples and metrics, and the evaluation of its points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lowland import checks
from lowland.core import Classification, EvalOptions, LossSurface, Point
from lowland.core.inner import inner
from lowland.core.options import Plan
from lowland.errors import ConfigError, NonFiniteError
from lowland.evaluate.batchnorm_statistics import require_statistics
from lowland.evaluate.engine import Evaluation
from lowland.evaluate.fingerprint import evaluation_fingerprint
from lowland.files import PathLike
from lowland.geometry import Affine, Curve, Shape
from lowland.landscape import refinement
from lowland.landscape.grid import grid_of
from lowland.landscape.journal import Journal
from lowland.landscape.overlays import Overlays
from lowland.landscape.point_metrics import (
    TOGETHER,
    CombinedSink,
    JointPredictionSink,
    Metrics,
    MetricSink,
    PointMetrics,
    Row,
    name_of,
)
from lowland.landscape.point_scan import Measure, PointScan
from lowland.progress import Progress
from lowland.records import SurfaceResult
from lowland.tensor_files import tensor_checksum


@dataclass(frozen=True)
class ScanOptions:
    """The options of `scan` apart from how points are evaluated."""

    resolution: int | Sequence[int] = 41
    margin: float = 0.2
    bounds: Any = None
    loader: Iterable[Any] | None = None
    metrics: Metrics | None = None
    together: Sequence[Tensor | Point] | None = None
    refine: bool | float | None = None
    marks: Sequence[str] | Mapping[str, Any] | None = None
    curves: Mapping[str, Curve] | None = None
    paths: Mapping[str, Any] | None = None


class GridScan:
    """A scan over a grid, ready to run."""

    def __init__(
        self, shape: Shape, surface: LossSurface, scan_options: ScanOptions, options: EvalOptions
    ) -> None:
        require_statistics(shape, surface, options)
        self.shape, self.surface, self.options = shape, surface, options
        self.tolerance = _tolerance(scan_options.refine)
        self.overlays = Overlays.on(
            shape, scan_options.marks, scan_options.curves, scan_options.paths
        )
        self.grid = grid_of(
            shape,
            resolution=scan_options.resolution,
            margin=scan_options.margin,
            bounds=scan_options.bounds,
            around=[path["coords"] for path in self.overlays.paths.values()],
        )
        self.together = [surface.point(w) for w in scan_options.together or ()]
        self.metrics = metrics = PointMetrics(surface, scan_options.metrics, options)
        self.metric_names = [*metrics.names, *map(name_of, metrics.functions)]
        if not (self.metric_names or self.together):
            raise ConfigError("metrics: expected at least one metric, got none.")
        self.refined_metric = metrics.names[0] if metrics.names else ""
        self.data = surface.replayable(scan_options.loader, count=options.count).cached()
        sinks: list[MetricSink] = [metrics.sink()]
        self.average = JointPredictionSink(surface.task)
        if self.together:
            sinks.append(self.average)
            classifies = isinstance(surface.task, Classification)
            metrics.names += TOGETHER if classifies else TOGETHER[:1]
        self.scan = PointScan(
            shape,
            surface,
            self.grid.coords,
            [(self.data, CombinedSink(sinks))],
            options,
            row=lambda parts, point: metrics(parts[0], point),
            begin=self._fix_average,
        )

    @property
    def points(self) -> int:
        """The number of points of the grid."""
        return len(self.grid.coords)

    def initial_points(self) -> list[int]:
        """Indices of the points that are evaluated first; all where nothing is refined."""
        if self.tolerance is None:
            return list(range(self.points))
        return refinement.coarse(self.grid.shape, self._steps())

    def _steps(self) -> Tensor:
        """The marks in steps of the grid, (q, k)."""
        axes = [self.grid.x] if self.grid.y is None else [self.grid.x, self.grid.y]
        marks = self.overlays.marks.values()
        columns = []
        for i, axis in enumerate(axes):
            coords = torch.stack([mark[i] for mark in marks]) if marks else axis[:0]
            columns.append((coords - axis[0]) / (axis[1] - axis[0]))
        return torch.stack(columns, dim=1)

    def plan(self) -> Plan:
        """How points are evaluated."""
        return self.scan.plan()

    def evaluate(self, points: Sequence[int], plan: Plan) -> None:
        """Evaluates points of the grid without storing results."""
        self.scan.evaluate(points, plan, lambda points, rows: None)

    def _fix_average(self, plan: Plan) -> None:
        """Computes once the predictions of the networks that each point is averaged with."""
        if self.together and not self.average.fixed:
            evaluation = Evaluation(self.surface, [(self.data, self.average)], self.options)
            evaluation.run(self.together, plan=plan)
            self.average.fix()

    def result(self, store: PathLike | None, progress: Progress) -> SurfaceResult:
        """Evaluates the points that are not in the file, and returns the record."""
        journal = Journal(store, self.settings() if store is not None else {})
        plan = journal.plan or self.plan()
        steps = None if self.tolerance is None else self._refine
        self.scan.run(journal, plan, steps=steps, progress=progress, label="scan")
        return self.overlays.over(self._record(self.scan.rows, plan))

    def _refine(self, measure: Measure) -> None:
        assert self.tolerance is not None

        def evaluate(points: list[int]) -> Tensor:
            measure(points)
            rows = [self.scan.rows[i] for i in points]
            return torch.tensor([next(iter(row.values())) for row in rows], dtype=torch.float64)

        refinement.refine(
            self.refined_metric, self.grid.shape, self._steps(), evaluate, tolerance=self.tolerance
        )

    def _record(self, rows: dict[int, Row], plan: Plan) -> SurfaceResult:
        evaluated = torch.zeros(self.points, dtype=torch.bool)
        evaluated[list(rows)] = True
        names = list(next(iter(rows.values())))
        metrics = {}
        positions = refinement.lattice(self.grid.shape)
        for name in names:
            values = torch.full((self.points,), float("nan"), dtype=torch.float64)
            values[list(rows)] = torch.tensor(
                [row[name] for row in rows.values()], dtype=torch.float64
            )
            values[values.isnan()] = torch.nan  # a file does not hold the sign of NaN
            if self.tolerance is not None:
                values = refinement.Samples(name, positions, values, evaluated).fill()
            metrics[name] = values.reshape(self.grid.shape)
        if not any(bool(torch.isfinite(values).any()) for values in metrics.values()):
            raise NonFiniteError(
                f"none of the {len(rows)} points has a finite {names[0]}; scan nearer to the "
                "weights with bounds= or a smaller margin=, or look at the training run."
            )
        about: dict[str, Any] = {
            "points": len(rows),
            "most": self.points,
            "plan": f"{plan.strategy}, {plan.chunk} at once, threads: {plan.threads}",
        }
        if isinstance(self.shape, Affine):
            gram = inner(self.shape.basis, self.shape.basis)
            about["orthonormal"] = bool(
                torch.allclose(gram, torch.eye(len(gram)).to(gram), atol=1e-3)
            )
        return SurfaceResult(
            x=self.grid.x,
            y=self.grid.y,
            metrics=metrics,
            evaluated_mask=None if self.tolerance is None else evaluated.reshape(self.grid.shape),
            batchnorm=self.options.batchnorm if self.surface.has_batchnorm else "none",
            examples=self.data.num_examples or 0,
            about=about,
        )

    def settings(self) -> dict[str, Any]:
        """The settings that must be equal for a file to be continued."""
        y = self.grid.y
        return {
            "x": self.grid.x.tolist(),
            "y": None if y is None else y.tolist(),
            "examples": f"{self.data.num_examples} {self.data.checksum}",
            "metrics": self.metric_names,
            "together": tensor_checksum(*(p.weights for p in self.together)),
            "refine": self.tolerance,
            **evaluation_fingerprint(self.shape, self.surface, self.options),
        }


def _tolerance(refine: bool | float | None) -> float | None:
    if refine is None or refine is False:
        return None
    if refine is True:
        return refinement.TOLERANCE
    return checks.number("refine", refine, above=0, below=1)
