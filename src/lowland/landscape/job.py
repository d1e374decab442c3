"""A scan that is set up: its grid, examples and figures, and the way through its points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lowland import checks
from lowland.core import Classification, EvalOptions, LossSurface, Point
from lowland.core.layout import inner
from lowland.core.options import Plan
from lowland.errors import ConfigError, NonFiniteError
from lowland.evaluate.batchnorm_statistics import require_statistics
from lowland.evaluate.engine import Evaluation, replayable_loader
from lowland.evaluate.fingerprint import evaluation_fingerprint, tensor_checksum
from lowland.files import PathLike
from lowland.geometry import Affine, Curve, Shape
from lowland.landscape import refine as refinement
from lowland.landscape.figures import (
    TOGETHER,
    Figures,
    JointSink,
    Metrics,
    PointMetrics,
    Row,
    Together,
    name_of,
)
from lowland.landscape.grid import grid_of
from lowland.landscape.ledger import Ledger
from lowland.landscape.overlays import Overlays
from lowland.landscape.points import Measure, PointScan
from lowland.progress import Progress
from lowland.records import SurfaceResult


@dataclass(frozen=True)
class ScanOptions:
    """What is scanned and drawn, as `scan` takes it."""

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


class Job:
    """A scan that is set up."""

    def __init__(
        self, shape: Shape, surface: LossSurface, what: ScanOptions, options: EvalOptions
    ) -> None:
        require_statistics(shape, surface, options)
        self.shape, self.surface, self.options = shape, surface, options
        self.tolerance = _tolerance(what.refine)
        self.overlays = Overlays.on(shape, what.marks, what.curves, what.paths)
        self.grid = grid_of(
            shape,
            resolution=what.resolution,
            margin=what.margin,
            bounds=what.bounds,
            around=[path["coords"] for path in self.overlays.paths.values()],
        )
        self.together = [surface.point(w) for w in what.together or ()]
        self.metrics = metrics = PointMetrics(surface, what.metrics, options)
        self.metric_names = [*metrics.names, *map(name_of, metrics.functions)]
        if not (self.metric_names or self.together):
            raise ConfigError("metrics: expected at least one figure, got none.")
        self.colours = metrics.names[0] if metrics.names else ""  # what refinement looks at
        self.data = replayable_loader(surface, what.loader, count=options.count).cached()
        sinks: list[Figures] = [metrics.sink()]
        self.average = Together(surface.task)
        if self.together:
            sinks.append(self.average)
            several = isinstance(surface.task, Classification)
            metrics.names += TOGETHER if several else TOGETHER[:1]
        self.scan = PointScan(
            shape,
            surface,
            self.grid.coords,
            [(self.data, JointSink(sinks))],
            options,
            row=lambda parts, point: metrics(parts[0], point),
            begin=self._fix,
        )

    @property
    def points(self) -> int:
        """How many the grid has."""
        return len(self.grid.coords)

    def start(self) -> list[int]:
        """The points that are evaluated in any case."""
        if self.tolerance is None:
            return list(range(self.points))
        return refinement.coarse(self.grid.shape, self._steps())

    def _steps(self) -> Tensor:
        """The marks in steps of the grid."""
        axes = [self.grid.x] if self.grid.y is None else [self.grid.x, self.grid.y]
        marks = self.overlays.marks.values()
        columns = []
        for i, axis in enumerate(axes):
            at = torch.stack([mark[i] for mark in marks]) if marks else axis[:0]
            columns.append((at - axis[0]) / (axis[1] - axis[0]))
        return torch.stack(columns, dim=1)

    def plan(self) -> Plan:
        """How points are evaluated."""
        return self.scan.plan()

    def evaluate(self, points: Sequence[int], plan: Plan) -> None:
        """Evaluates points of the grid, and keeps nothing."""
        self.scan.evaluate(points, plan, lambda points, rows: None)

    def _fix(self, plan: Plan) -> None:
        """Once, the predictions of the networks that each point is averaged with."""
        if self.together and not self.average.fixed:
            evaluation = Evaluation(self.surface, [(self.data, self.average)], self.options)
            evaluation.run(self.together, plan=plan)
            self.average.fix()

    def result(self, store: PathLike | None, progress: Progress) -> SurfaceResult:
        """Evaluates what is not in the file, and makes the record."""
        ledger = Ledger(store, self.settings() if store is not None else {})
        plan = ledger.plan or self.plan()
        steps = None if self.tolerance is None else self._refine
        self.scan.run(ledger, plan, steps=steps, progress=progress, label="scan")
        return self.overlays.over(self._record(self.scan.rows, plan))

    def _refine(self, measure: Measure) -> None:
        assert self.tolerance is not None

        def evaluate(points: list[int]) -> Tensor:
            measure(points)
            rows = [self.scan.rows[i] for i in points]
            return torch.tensor([next(iter(row.values())) for row in rows], dtype=torch.float64)

        refinement.refined(
            self.colours, self.grid.shape, self._steps(), evaluate, tolerance=self.tolerance
        )

    def _record(self, rows: dict[int, Row], plan: Plan) -> SurfaceResult:
        known = torch.zeros(self.points, dtype=torch.bool)
        known[list(rows)] = True
        names = list(next(iter(rows.values())))
        metrics = {}
        places = None if self.tolerance is None else refinement.lattice(self.grid.shape)
        for name in names:
            values = torch.full((self.points,), float("nan"), dtype=torch.float64)
            values[list(rows)] = torch.tensor(
                [row[name] for row in rows.values()], dtype=torch.float64
            )
            values[values.isnan()] = torch.nan  # a file does not hold the sign of one
            if places is not None:
                values = refinement.filled(name, places, values, known)
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
            evaluated_mask=None if self.tolerance is None else known.reshape(self.grid.shape),
            batchnorm=self.options.batchnorm if self.surface.has_batchnorm else "none",
            examples=self.data.num_examples or 0,
            about=about,
        )

    def settings(self) -> dict[str, Any]:
        """What must be the same for values of a file to be those of this scan."""
        y = self.grid.y
        return {
            "x": self.grid.x.tolist(),
            "y": None if y is None else y.tolist(),
            "rows": f"{self.data.num_examples} {self.data.checksum}",
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
    return checks.number("refine", refine, above=0, below=1)  # what colours may be off by
