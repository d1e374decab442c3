"""Artifacts of curves between two networks: the curve, losses along it, table and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowland import plots
from lowland.artifacts import Artifact, Checkpoint, Inputs, Settings
from lowland.geometry import Bezier, Curve, Line, PolyChain
from lowland.landscape import path as losses_along
from lowland.progress import Report
from lowland.records import PathResult, TrainingLog
from lowland.runs.keys import key
from lowland.runs.pictures import Picture, picture_of_lines
from lowland.runs.records import RecordArtifact, RowsTable
from lowland.runs.shape_sections import Connect
from lowland.runs.training import LOG, fit_options, fit_values, log_without_seconds
from lowland.train import fit

if TYPE_CHECKING:
    from lowland.runs.run import Run

CURVE = "curve.safetensors"
KINDS: dict[str, type[Curve]] = {"line": Line, "bezier": Bezier, "chain": PolyChain}
TITLES = {
    "line": "Line",
    "aligned": "Line, aligned",
    "bezier": "Bezier curve",
    "chain": "Polygonal chain",
}


class CurveOptions(Connect):
    """Curves between two networks, and where losses along them are evaluated."""

    align: bool = key(
        False,
        "add the straight line to the second network with its hidden units in the order that "
        "brings it nearest to the first",
    )
    seed: int = key(0, "seed of everything random", ge=0)


class ConnectingCurve(Artifact):
    """A curve between two networks.

    Args:
        sources: what it is built from, besides its ends. settings: what changes it.
    """

    def __init__(
        self,
        run: Run,
        ends: Sequence[Artifact],
        curve_kind: str,
        options: CurveOptions,
        *,
        sources: Sequence[Artifact],
        settings: Settings,
    ) -> None:
        self.run = run
        self.ends = tuple(ends)
        self.options = options
        self.curve_kind = curve_kind
        title = f"fit: {TITLES[curve_kind]}"
        super().__init__(f"curve/{curve_kind}", [*sources, *ends], settings, title=title)

    def save(self, result: Curve, folder: Path) -> None:
        result.save(folder / CURVE)

    def load(self, folder: Path) -> Curve:
        return KINDS.get(self.curve_kind, Line).load(folder / CURVE)


class StraightLine(ConnectingCurve):
    """A line between two networks, as they are or with the second one's units permuted."""

    kind = "line"
    quick = True

    def __init__(
        self, run: Run, ends: Sequence[Artifact], curve_kind: str, options: CurveOptions
    ) -> None:
        names = ["model", "task"] if curve_kind == "aligned" else ["model"]
        sources = run.named_sources(*names)
        settings = {"evaluation": {}, "kind": curve_kind, "fit": {}, "train": {}}
        super().__init__(run, ends, curve_kind, options, sources=sources, settings=settings)

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Curve:
        first, last = (inputs[end.name] for end in self.ends)
        if self.curve_kind == "aligned":
            last = self.run.setup.aligned(first, last)
        return Line(first, last)


class FittedCurve(ConnectingCurve):
    """A curve whose control points are fitted, as the networks were trained."""

    kind = "curve"

    def __init__(
        self, run: Run, ends: Sequence[Artifact], curve_kind: str, options: CurveOptions
    ) -> None:
        self.epochs = options.epochs or run.config.train.epochs
        fitting = {
            "epochs": self.epochs,
            "bends": options.bends,
            "lr": options.lr,
            "seed": options.seed,
        }
        settings = run.settings(kind=curve_kind, fit=fitting, train=fit_values(run.config))
        sources = run.evaluated("train")
        super().__init__(run, ends, curve_kind, options, sources=sources, settings=settings)

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Curve:
        options = self.options
        first, last = (inputs[end.name] for end in self.ends)
        return fit(
            KINDS[self.curve_kind].between(first, last, bends=options.bends),
            self.run.setup.surface,
            **fit_options(self.run.setup, epochs=self.epochs, lr=options.lr, seed=options.seed),
            checkpoint=checkpoint.file("fit.safetensors"),
            progress=progress,
        )

    def save(self, result: Curve, folder: Path) -> None:
        super().save(result, folder)
        log = result.log
        assert isinstance(log, TrainingLog)
        log_without_seconds(log).save(folder / LOG)

    def view(self) -> Mapping[str, str]:
        return {
            CURVE: f"shapes/{self.curve_kind}.safetensors",
            LOG: f"records/training-{self.curve_kind}.json",
        }


class CurvePath(RecordArtifact):
    """Losses and errors along a curve, on training and test examples."""

    kind = "path"
    record = PathResult

    def __init__(self, run: Run, curve: ConnectingCurve) -> None:
        self.run = run
        self.curve = curve
        options = curve.options
        super().__init__(
            f"path/{curve.curve_kind}",
            [*run.evaluated("test"), curve],
            run.settings(points=options.points, examples=options.examples),
            file=f"path-{curve.curve_kind}.json",
            title=f"along: {TITLES[curve.curve_kind]}",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> PathResult:
        return losses_along(
            inputs[self.curve.name],
            self.run.setup.surface,
            points=self.curve.options.points,
            loader=self.run.setup.test,
            count=self.curve.options.examples,
            store=checkpoint.file("path.journal"),
            progress=progress,
        )


class CurvesTable(RowsTable):
    """The highest losses on each curve, and its barrier."""

    kind = "curves-table"

    def __init__(self, paths: Sequence[CurvePath]) -> None:
        super().__init__("curves", {TITLES[path.curve.curve_kind]: path for path in paths})

    def row(self, label: str, result: PathResult) -> dict[str, Any]:
        summary = result.summary()
        row: dict[str, Any] = {
            "method": label,
            "loss_ends": max(float(result.loss[0]), float(result.loss[-1])),
            "loss_max": summary["loss"]["max"],
            "barrier": result.barrier,
        }
        for name in ("error", "test_loss", "test_error"):
            if name in summary:
                values = getattr(result, name)
                row[f"{name}_ends"] = max(float(values[0]), float(values[-1]))
                row[f"{name}_max"] = summary[name]["max"]
        return row | {"length": float(result.length[-1])}


def path_picture(paths: Sequence[CurvePath], metric: str) -> Picture:
    """A metric along all curves."""

    def draw(records: dict[str, PathResult]) -> Any:
        measured = metric in next(iter(records.values())).summary()
        return plots.path(records, metric=metric) if measured else None

    lines = {TITLES[path.curve.curve_kind]: path for path in paths}
    return picture_of_lines(f"path-{metric}", lines, draw)


def curve_artifacts(run: Run, ends: Sequence[Artifact], options: CurveOptions) -> list[Artifact]:
    """The table of the curves, and their pictures: what stands on everything else."""
    kinds = dict.fromkeys(["line", *(["aligned"] if options.align else []), *options.kinds])
    curves = [
        (FittedCurve if kind in options.kinds else StraightLine)(run, ends, kind, options)
        for kind in kinds
    ]
    paths = [CurvePath(run, curve) for curve in curves]
    return [CurvesTable(paths), *(path_picture(paths, metric) for metric in ("loss", "error"))]
