"""Artifacts of curves between two networks: the curve, losses along it, table and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lowland import plots
from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.geometry import Bezier, Curve, Line, PolyChain
from lowland.landscape import path as losses_along
from lowland.progress import Report
from lowland.records import PathResult, Table, TrainingLog
from lowland.runs.pictures import Picture
from lowland.runs.records import RecordArtifact
from lowland.runs.training import log_without_seconds
from lowland.train import fit
from lowland.trajectory import DecaySchedule

if TYPE_CHECKING:
    from lowland.runs.run import Run

KINDS: dict[str, type[Curve]] = {"line": Line, "bezier": Bezier, "chain": PolyChain}
TITLES = {
    "line": "Line",
    "aligned": "Line, aligned",
    "bezier": "Bezier curve",
    "chain": "Polygonal chain",
}


@dataclass(frozen=True)
class Joining:
    """How two networks are joined, and where the curves are looked at."""

    kinds: tuple[str, ...] = ("bezier",)
    bends: int = 1
    epochs: int = 0  # 0: as long as the networks were trained
    lr: float = 0.05
    points: int = 61
    examples: int = 10_000  # of the training examples, for loss and error along the curves
    align: bool = False  # a line to the second network with its units in the first one's order
    seed: int = 0


@dataclass(frozen=True)
class CurveSettings:
    """What changes a curve, but for its ends."""

    kind: str
    fit: Mapping[str, Any]
    train: Mapping[str, Any]
    evaluation: Mapping[str, Any]


@dataclass(frozen=True)
class PathSettings:
    """Where losses along a curve are taken."""

    points: int
    examples: int
    evaluation: Mapping[str, Any]


class JoiningCurve(Artifact):
    """A line between two networks, straight or with the second one's units permuted."""

    kind = "line"
    quick = True

    def __init__(self, run: Run, ends: Sequence[Artifact], kind: str, joining: Joining) -> None:
        self.run = run
        self.ends = tuple(ends)
        self.joining = joining
        self.curve_kind = kind
        super().__init__(f"curve/{kind}", [*self.given(), *ends], self.curve_settings())

    def given(self) -> list[Artifact]:
        """The sources that it depends on, besides its ends."""
        names = ["model", "task"] if self.curve_kind == "aligned" else ["model"]
        return self.run.given(*names)

    def curve_settings(self) -> CurveSettings:
        """What changes it."""
        return CurveSettings(self.curve_kind, {}, {}, {})

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Curve:
        first, last = (inputs[end.name] for end in self.ends)
        if self.curve_kind == "aligned":
            last = self.run.setup.aligned(first, last)
        return Line(first, last)

    def save(self, result: Curve, folder: Path) -> None:
        result.save(folder / "curve.safetensors")

    def load(self, folder: Path) -> Curve:
        cls = KINDS.get(self.curve_kind, Line)
        return cls.load(folder / "curve.safetensors")


class FittedCurve(JoiningCurve):
    """A curve whose control points are fitted, as the networks were trained."""

    kind = "curve"
    quick = False

    def given(self) -> list[Artifact]:
        return [*self.run.given("model", "task", "data/train"), *self.run.statistics()]

    def curve_settings(self) -> CurveSettings:
        joining, config = self.joining, self.run.config
        settings = {"epochs": self.epochs(), "bends": joining.bends, "lr": joining.lr}
        train = config.train.model_dump(exclude={"epochs", "lr"}) | {"compile": config.compile}
        return CurveSettings(
            self.curve_kind, settings | {"seed": joining.seed}, train, self.run.evaluation()
        )

    @property
    def title(self) -> str:
        return f"fit: {TITLES[self.curve_kind]}"

    def epochs(self) -> int:
        """Epochs of fitting."""
        return self.joining.epochs or self.run.config.train.epochs

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Curve:
        setup, joining = self.run.setup, self.joining
        train = setup.config.train
        first, last = (inputs[end.name] for end in self.ends)
        curve = KINDS[self.curve_kind].between(first, last, bends=joining.bends)
        total = self.epochs() * -(-setup.length() // train.accumulate)

        def optimizer(parameters: Any) -> torch.optim.Optimizer:
            return torch.optim.SGD(parameters, lr=joining.lr, momentum=train.momentum, fused=True)

        return fit(
            curve,
            setup.surface,
            epochs=self.epochs(),
            loader=setup.batches(joining.seed),
            optimizer=optimizer,
            schedule=lambda each: DecaySchedule(each, total=total),
            weight_decay=train.weight_decay,
            compile=setup.config.compile,
            accumulate=train.accumulate,
            clip=train.clip,
            seed=joining.seed,
            checkpoint=checkpoint.file("fit.safetensors"),
            progress=progress,
        )

    def save(self, result: Curve, folder: Path) -> None:
        super().save(result, folder)
        log = result.log
        assert isinstance(log, TrainingLog)
        log_without_seconds(log).save(folder / "log.json")

    def view(self) -> Mapping[str, str]:
        return {
            "curve.safetensors": f"shapes/{self.curve_kind}.safetensors",
            "log.json": f"records/training-{self.curve_kind}.json",
        }


class CurvePath(RecordArtifact):
    """Losses and errors along a curve, on training and test examples."""

    kind = "path"
    record = PathResult

    def __init__(self, run: Run, curve: JoiningCurve) -> None:
        self.run = run
        self.curve = curve
        given = run.given("model", "task", "data/test")
        super().__init__(
            f"path/{curve.curve_kind}",
            [*given, *run.statistics(), curve],
            PathSettings(curve.joining.points, curve.joining.examples, run.evaluation()),
            file=f"path-{curve.curve_kind}.json",
        )

    @property
    def title(self) -> str:
        return f"along: {TITLES[self.curve.curve_kind]}"

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> PathResult:
        return losses_along(
            inputs[self.curve.name],
            self.run.setup.surface,
            points=self.curve.joining.points,
            loader=self.run.setup.test,
            count=self.curve.joining.examples,
            store=checkpoint.file("path.journal"),
            progress=progress,
        )


class CurvesTable(RecordArtifact):
    """The highest losses on each curve, and its barrier."""

    kind = "curves-table"
    quick = True
    record = Table

    def __init__(self, paths: Sequence[CurvePath]) -> None:
        self.paths = tuple(paths)
        super().__init__("tables/curves", self.paths, file="curves.json")

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Table:
        return Table.from_rows(
            _row(path.curve.curve_kind, inputs[path.name]) for path in self.paths
        )


class PathPicture(Picture):
    """A metric along all curves."""

    def __init__(self, paths: Sequence[CurvePath], metric: str) -> None:
        self.paths = {TITLES[path.curve.curve_kind]: path for path in paths}
        self.metric = metric
        super().__init__(f"path-{metric}", list(paths), list(self.paths))

    def draw(self, inputs: Inputs) -> Any:
        records = {title: inputs[path.name] for title, path in self.paths.items()}
        if self.metric not in next(iter(records.values())).summary():
            return None
        return plots.path(records, metric=self.metric)


def joining_artifacts(run: Run, ends: Sequence[Artifact], joining: Joining) -> list[Artifact]:
    """The table of the curves, and their pictures: what stands on everything else."""
    kinds = ["line", *(["aligned"] if joining.align else []), *joining.kinds]
    curves = [
        (FittedCurve if kind in joining.kinds else JoiningCurve)(run, ends, kind, joining)
        for kind in kinds
    ]
    paths = [CurvePath(run, curve) for curve in curves]
    return [CurvesTable(paths), *(PathPicture(paths, metric) for metric in ("loss", "error"))]


def _row(kind: str, record: PathResult) -> dict[str, Any]:
    summary = record.summary()
    row: dict[str, Any] = {"method": TITLES[kind]}
    row |= {"loss_ends": max(float(record.loss[0]), float(record.loss[-1]))}
    row |= {"loss_max": summary["loss"]["max"], "barrier": record.barrier}
    for name in ("error", "test_loss", "test_error"):
        if name in summary:
            values = getattr(record, name)
            row[f"{name}_ends"] = max(float(values[0]), float(values[-1]))
            row[f"{name}_max"] = summary[name]["max"]
    return row | {"length": float(record.length[-1])}


def joining_values(joining: Joining) -> dict[str, Any]:
    """The settings as plain values."""
    return asdict(joining) | {"kinds": list(joining.kinds)}
