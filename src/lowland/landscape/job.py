"""A scan that is set up: its grid, rows and figures, and the way through its points."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lowland import checks
from lowland.core import Classification, LossSurface, Point
from lowland.core.layout import inner
from lowland.errors import ConfigError, NonFiniteError
from lowland.evaluate.conditions import conditions, print_of
from lowland.evaluate.evaluator import Block, planned, rows_for, run
from lowland.evaluate.planner import Plan
from lowland.evaluate.statistics import require_statistics
from lowland.files import PathLike
from lowland.geometry import Affine, Curve, Shape
from lowland.landscape import refine as refinement
from lowland.landscape.figures import (
    TOGETHER,
    Figures,
    Metrics,
    Recorder,
    Row,
    Together,
    asked_for,
    likelihoods_of,
    name_of,
)
from lowland.landscape.grid import curve_on, explained_by, grid_of, marks_of, path_on
from lowland.landscape.ledger import Ledger
from lowland.progress import Progress, reporting
from lowland.records import SurfaceResult

_BLOCK = 1 << 20  # weights that are made at once where points go together, one by one, in chunks


class Job:
    """A scan that is set up: its grid, rows and figures."""

    def __init__(
        self,
        shape: Shape,
        surface: LossSurface,
        *,
        resolution: int | Sequence[int] = 41,
        margin: float = 0.2,
        bounds: Any = None,
        loader: Iterable[Any] | None = None,
        metrics: Metrics | None = None,
        together: Sequence[Tensor | Point] | None = None,
        batchnorm: str = "refresh",
        refine: bool | float | None = None,
        marks: Sequence[str] | Mapping[str, Any] | None = None,
        curves: Mapping[str, Curve] | None = None,
        paths: Mapping[str, Any] | None = None,
        count: int | None = None,
    ) -> None:
        require_statistics(shape, surface, batchnorm)
        self.shape, self.surface, self.batchnorm = shape, surface, batchnorm
        self.tolerance = _tolerance(refine)
        if curves and not isinstance(shape, Affine):
            raise ConfigError("curves: they are drawn on planes and subspaces, not along a curve.")
        self.paths = {name: path_on(shape, path) for name, path in (paths or {}).items()}
        around = [path["coords"] for path in self.paths.values()]
        self.grid = grid_of(
            shape, resolution=resolution, margin=margin, bounds=bounds, around=around
        )
        self.coords = self.grid.coords
        self.marks = marks_of(shape, marks)
        self.curves = {name: curve_on(shape, curve) for name, curve in (curves or {}).items()}
        self.together = [surface.point(w) for w in together or ()]
        self.names, self.functions = asked_for(surface.task, metrics)
        if not (self.names or self.functions or self.together):
            raise ConfigError("metrics: expected at least one figure, got none.")
        self.rows = rows_for(surface, loader, count=count).held()
        self._parts: list[Figures] = []

    @property
    def points(self) -> int:
        """How many the grid has."""
        return len(self.coords)

    def start(self) -> list[int]:
        """The points that are evaluated in any case."""
        if self.tolerance is None:
            return list(range(self.points))
        return refinement.coarse(self.grid.shape, self._steps())

    def _steps(self) -> Tensor:
        """The marks in steps of the grid."""
        axes = [self.grid.x] if self.grid.y is None else [self.grid.x, self.grid.y]
        columns = []
        for i, axis in enumerate(axes):
            at = torch.stack([mark[i] for mark in self.marks.values()]) if self.marks else axis[:0]
            columns.append((at - axis[0]) / (axis[1] - axis[0]))
        return torch.stack(columns, dim=1)

    def plan(self, strategy: str | None, chunk: int | None) -> Plan:
        """How points are evaluated."""
        resident = self.rows.resident()
        whole = any(part.whole for part in self._likelihoods())
        first = self.surface.point(self.shape.point(self.coords[:1]))
        return planned(
            self.surface,
            [(self.rows, resident, whole)],
            first,
            total=self.points,
            strategy=strategy,
            chunk=chunk,
        )

    def _likelihoods(self) -> list[Figures]:
        return likelihoods_of(self.surface.task, self.names)

    def _sinks(self, plan: Plan) -> list[Figures]:
        """Made once: the fixed networks' predictions are."""
        if not self._parts:
            self._parts = self._likelihoods()
            if self.together:
                both = Together(self.surface.task)
                self._run(self.together, both, plan)
                both.fix()
                self._parts.append(both)
        return self._parts

    def evaluate(self, points: Sequence[int], plan: Plan, take: Any, **options: Any) -> None:
        """Evaluates points of the grid; take(first, rows) is called after each chunk."""
        parts = self._sinks(plan)
        names = list(self.names)
        if self.together:
            names += TOGETHER if isinstance(self.surface.task, Classification) else TOGETHER[:1]
        at = self.coords[list(points)]
        recorder = Recorder(
            self.surface,
            names,
            parts,
            point=lambda i: self.shape.point(at[i : i + 1]),
            functions=self.functions,
            batchnorm=self.batchnorm,
            take=take,
        )
        self._run(weights(self.shape, at, plan), recorder, plan, **options)

    def _run(self, points: Iterable[Any], sink: Any, plan: Plan, **options: Any) -> None:
        run(
            self.surface,
            points,
            self.rows,
            sink,
            strategy=plan,
            batchnorm=self.batchnorm,
            **options,
        )

    def result(
        self,
        *,
        store: PathLike | None,
        strategy: str | None,
        chunk: int | None,
        progress: Progress,
    ) -> SurfaceResult:
        """Evaluates what is not in the file, and makes the record."""
        ledger = Ledger(store, self.settings(strategy, chunk) if store is not None else {})
        plan = ledger.plan or self.plan(strategy, chunk)
        ledger.start(plan)
        found: dict[int, Row] = {}
        most = self.points
        with reporting(progress, "scan") as report:

            def stage(points: list[int]) -> None:
                rows = ledger.replay(points)
                found.update(zip(points, rows, strict=False))
                rest = points[len(rows) :]
                report(len(found), most)

                def take(first: int, rows: list[Row]) -> None:
                    indices = rest[first : first + len(rows)]
                    found.update(zip(indices, rows, strict=True))
                    ledger.write(indices, rows)
                    report(len(found), most)

                if rest:
                    self.evaluate(rest, plan, take)

            try:
                if self.tolerance is None:
                    stage(self.start())
                else:
                    self._refine(stage, found)
                    report(len(found), len(found))
            finally:
                ledger.close()
        return self._record(found, plan)

    def _refine(self, stage: Any, found: dict[int, Row]) -> None:
        assert self.tolerance is not None

        def evaluate(points: list[int]) -> Tensor:
            stage(points)
            first = next(iter(found[points[0]]))
            return torch.tensor([found[i][first] for i in points], dtype=torch.float64)

        name = self.names[0] if self.names else ""
        refinement.refined(name, self.grid.shape, self._steps(), evaluate, tolerance=self.tolerance)

    def _record(self, found: dict[int, Row], plan: Plan) -> SurfaceResult:
        known = torch.zeros(self.points, dtype=torch.bool)
        known[list(found)] = True
        names = list(next(iter(found.values())))
        figures = {}
        places = None if self.tolerance is None else refinement.lattice(self.grid.shape)
        for name in names:
            values = torch.full((self.points,), float("nan"), dtype=torch.float64)
            values[list(found)] = torch.tensor(
                [row[name] for row in found.values()], dtype=torch.float64
            )
            values[values.isnan()] = torch.nan  # a file does not hold the sign of one
            if places is not None:
                values = refinement.filled(name, places, values, known)
            figures[name] = values.reshape(self.grid.shape)
        if not any(bool(torch.isfinite(values).any()) for values in figures.values()):
            raise NonFiniteError(
                f"none of the {len(found)} points has a finite {names[0]}; scan nearer to the "
                "weights with bounds= or a smaller margin=, or look at the training run."
            )
        explained = [explained_by(self.shape, path) for path in self.paths.values()]
        about: dict[str, Any] = {
            "points": len(found),
            "most": self.points,
            "plan": f"{plan.strategy}, {plan.chunk} at once, threads: {plan.threads}",
        }
        if isinstance(self.shape, Affine):
            gram = inner(self.shape.basis, self.shape.basis)
            about["orthonormal"] = bool(
                torch.allclose(gram, torch.eye(len(gram)).to(gram), atol=1e-3)
            )
        if self.curves:
            about["off"] = {name: far for name, (_, far) in self.curves.items()}
        return SurfaceResult(
            x=self.grid.x,
            y=self.grid.y,
            figures=figures,
            known=None if self.tolerance is None else known.reshape(self.grid.shape),
            marks=self.marks,
            curves={name: z for name, (z, _) in self.curves.items()},
            paths=self.paths,
            explained=next((share for share in explained if share is not None), None),
            batchnorm=self.batchnorm if self.surface.has_batchnorm else "none",
            rows=self.rows.rows or 0,
            about=about,
        )

    def settings(self, strategy: str | None, chunk: int | None) -> dict[str, Any]:
        """What must be the same for values of a file to be those of this scan."""
        y = self.grid.y
        return {
            "x": self.grid.x.tolist(),
            "y": None if y is None else y.tolist(),
            "rows": f"{self.rows.rows} {self.rows.checksum}",
            "metrics": [*self.names, *map(name_of, self.functions)],
            "together": print_of(*(p.weights for p in self.together)),
            "refine": self.tolerance,
            **conditions(
                self.shape,
                self.surface,
                batchnorm=self.batchnorm,
                strategy=strategy,
                chunk=chunk,
            ),
        }


def weights(shape: Shape, coords: Tensor, plan: Plan) -> Iterator[Point | Block]:
    """The points at coordinates, one by one: of small networks a chunk at a time."""
    together = plan.strategy == "vmap" or plan.chunk * shape.size <= _BLOCK
    for block in coords.split(plan.chunk if together else 1):
        yield Block(shape(block), shape.buffers_at(block)) if together else shape.point(block)


def _tolerance(refine: bool | float | None) -> float | None:
    if refine is None or refine is False:
        return None
    if refine is True:
        return refinement.TOLERANCE
    return checks.number("refine", refine, above=0, below=1)  # what colours may be off by
