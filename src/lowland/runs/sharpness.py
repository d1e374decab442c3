"""Artifacts of `lowland sharpness`: measures at the weights of a run, their table and pictures."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field

from lowland import plots
from lowland.artifacts import Artifact, Checkpoint, Inputs, Source
from lowland.curvature import sharpness, spectrum, widths
from lowland.evaluate.table import evaluate
from lowland.geometry import Line
from lowland.landscape import path
from lowland.progress import Report
from lowland.records import PathResult, SharpnessResult, SpectrumResult, Table, WidthsResult
from lowland.runs.keys import Section, key
from lowland.runs.pictures import Picture, picture_of_lines
from lowland.runs.records import RecordArtifact

if TYPE_CHECKING:
    from lowland.runs.run import Run

Kind = Literal["keskar", "sam", "adaptive", "average"]


class SharpnessOptions(Section):
    """At which weights curvature is measured, by what, and on which examples."""

    weights: list[str] = key(
        [],
        "names of weights, files of the run's weights/; by default annealed networks, and the "
        "averages of the first trajectory",
    )
    kinds: list[Kind] = Field(
        default=["keskar", "sam", "adaptive", "average"],
        min_length=1,
        description="measures of sharpness",
    )
    eigenvalues: int = key(10, "largest eigenvalues of the Hessian", ge=0)
    probes: int = key(
        10, "random vectors of its trace and density; without them and eigenvalues none", ge=0
    )
    directions: int = key(10, "random rays", ge=1)
    rise: float = key(0.1, "rise of the loss that ends a width", unit="nats", gt=0)
    points: int = key(61, "points on the line between the first two weights", ge=3)
    examples: int = key(2000, "training examples of the measures", ge=2)
    seed: int = key(0, "seed of everything random", ge=0)


class WeightsMeasure(RecordArtifact):
    """A measure at a weight vector.

    Args:
        weights: a source, named weights/LABEL. measure: its name. splits: the examples besides the
            training examples. own: the options that change it.
    """

    def __init__(
        self,
        run: Run,
        weights: Source,
        options: SharpnessOptions,
        *,
        measure: str,
        own: Sequence[str],
        splits: Sequence[str] = (),
    ) -> None:
        self.run = run
        self.weights = weights
        self.options = options
        self.label = weights.name.partition("/")[2]
        self.measure = measure
        super().__init__(
            f"sharpness/{self.label}/{measure}",
            [*run.evaluated(*splits), weights],
            run.settings(**options.model_dump(include={*own, "examples"})),
            file=f"{measure}-{self.label}.json",
            title=f"{measure}: {self.label}",
        )

    @abstractmethod
    def row(self, record: Any) -> dict[str, float]:
        """Its columns in the table."""


class Losses(WeightsMeasure):
    """Metrics on the training examples of the measures, and on the test examples."""

    kind = "losses"
    record = Table

    def __init__(self, run: Run, weights: Source, options: SharpnessOptions) -> None:
        super().__init__(run, weights, options, measure="losses", own=(), splits=["test"])

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Table:
        setup, point = self.run.setup, inputs[self.weights.name]
        train = evaluate(setup.surface, [point], count=self.options.examples)
        test = evaluate(setup.surface, [point], setup.test, progress=progress)
        columns = {f"train_{name}": values for name, values in train.columns.items()}
        return Table(columns | {f"test_{name}": values for name, values in test.columns.items()})

    def row(self, record: Table) -> dict[str, float]:
        metrics = ("loss", "error", "rmse")
        names = [f"{split}_{name}" for split in ("train", "test") for name in metrics]
        return {name: float(record.columns[name][0]) for name in names if name in record.columns}


class Sharpness(WeightsMeasure):
    """The rise of the loss near weights, by one measure at its own radii."""

    kind = "sharpness"
    record = SharpnessResult

    def __init__(
        self, run: Run, weights: Source, options: SharpnessOptions, *, measure: Kind
    ) -> None:
        super().__init__(run, weights, options, measure=measure, own=["seed"])

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> SharpnessResult:
        return sharpness(
            self.run.setup.surface,
            inputs[self.weights.name],
            kind=self.measure,
            count=self.options.examples,
            seed=self.options.seed,
            progress=progress,
        )

    def row(self, record: SharpnessResult) -> dict[str, float]:
        return {self.measure: float(record)}


class Widths(WeightsMeasure):
    """Losses along filter-normalised random rays."""

    kind = "widths"
    record = WidthsResult

    def __init__(self, run: Run, weights: Source, options: SharpnessOptions) -> None:
        own = ["directions", "rise", "seed"]
        super().__init__(run, weights, options, measure="widths", own=own, splits=["test"])

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> WidthsResult:
        options = self.options
        return widths(
            self.run.setup.surface,
            inputs[self.weights.name],
            directions=options.directions,
            rise=options.rise,
            loader=self.run.setup.test,
            test_count=options.examples,
            count=options.examples,
            seed=options.seed,
            progress=progress,
        )

    def row(self, record: WidthsResult) -> dict[str, float]:
        return {"width": float(record.width.median()), "gradient_norm": record.gradient_norm}


class Spectrum(WeightsMeasure):
    """Leading eigenvalues, trace and density of the Hessian."""

    kind = "spectrum"
    record = SpectrumResult

    def __init__(self, run: Run, weights: Source, options: SharpnessOptions) -> None:
        own = ["eigenvalues", "probes", "seed"]
        super().__init__(run, weights, options, measure="spectrum", own=own)

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> SpectrumResult:
        options, surface = self.options, self.run.setup.surface
        result = spectrum(
            surface,
            inputs[self.weights.name],
            top=options.eigenvalues,
            probes=options.probes,
            seed=options.seed,
            loader=surface.replayable(None, count=options.examples),
            method="double_backward",  # chosen by time, two runs would differ in their last bits
            checkpoint=checkpoint.file("spectrum.safetensors"),
            progress=progress,
        )
        return replace(result, seconds=math.nan, timings={})  # equal settings give equal files

    def row(self, record: SpectrumResult) -> dict[str, float]:
        largest = {"eigenvalue": float(record.eigenvalues[0])} if self.options.eigenvalues else {}
        return largest | ({"trace": record.trace} if self.options.probes else {})


class LineBetween(RecordArtifact):
    """Losses on the line through two weight vectors, from before the first to behind the second."""

    kind = "line-between"
    record = PathResult

    def __init__(self, run: Run, ends: Sequence[Source], options: SharpnessOptions) -> None:
        self.run, self.ends, self.options = run, tuple(ends), options
        first, second = (end.name.partition("/")[2] for end in ends)
        self.labels = first, second
        super().__init__(
            f"sharpness/line/{'-'.join(self.labels)}",
            [*run.evaluated("test"), *ends],
            run.settings(**options.model_dump(include={"points", "examples"})),
            file="line.json",
            title=f"line: {' to '.join(self.labels)}",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> PathResult:
        return path(
            Line(*(inputs[end.name] for end in self.ends)),
            self.run.setup.surface,
            t=torch.linspace(-1, 2, self.options.points, dtype=torch.float64),
            loader=self.run.setup.test,
            count=self.options.examples,
            store=checkpoint.file("path.journal"),
            progress=progress,
        )


class SharpnessTable(RecordArtifact):
    """All measures, a row for each weight vector."""

    kind = "sharpness-table"
    quick = True
    record = Table

    def __init__(self, measures: Sequence[WeightsMeasure]) -> None:
        self.measures = tuple(measures)
        super().__init__("tables/sharpness", self.measures, file="sharpness.json")

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Table:
        rows: dict[str, dict[str, Any]] = {}
        for each in self.measures:
            row = rows.setdefault(each.label, {"method": each.label})
            row |= each.row(inputs[each.name])
        return Table.from_rows(rows.values())


def sharpness_artifacts(
    run: Run, weights: Sequence[Source], options: SharpnessOptions
) -> list[Artifact]:
    """The table of the measures and their pictures: what stands on everything else."""
    sharp = {
        kind: {each.name: Sharpness(run, each, options, measure=kind) for each in weights}
        for kind in options.kinds
    }
    wide = {each.name: Widths(run, each, options) for each in weights}
    measures: list[WeightsMeasure] = []
    for each in weights:
        measures += [Losses(run, each, options), *(m[each.name] for m in sharp.values())]
        measures.append(wide[each.name])
    spectra = [Spectrum(run, each, options) for each in weights]
    measures += spectra if options.eigenvalues or options.probes else []
    pictures = [_picture(f"sharpness-{k}", m.values(), plots.sharpness) for k, m in sharp.items()]
    if options.probes:
        pictures += [Picture(f"spectrum-{each.label}", [each], plots.spectrum) for each in spectra]
    pictures.append(_picture("rays-loss", wide.values(), plots.widths))
    pictures.append(_picture("rays-test-error", wide.values(), _draw_test_error))
    if len(weights) > 1:
        line = LineBetween(run, weights[:2], options)
        pictures.append(Picture("line", [line], partial(_draw_line, ends=line.labels)))
    return [SharpnessTable(measures), *pictures]


def _picture(name: str, measures: Iterable[WeightsMeasure], draw: Callable[..., Any]) -> Picture:
    return picture_of_lines(name, {each.label: each for each in measures}, draw)


def _draw_test_error(records: dict[str, WidthsResult]) -> Any:
    measured = all("test_error" in record.metrics for record in records.values())
    return plots.widths(records, metric="test_error") if measured else None


def _draw_line(record: PathResult, *, ends: tuple[str, str]) -> Any:
    measured = bool(record.error.isfinite().any())  # no error of a regression
    return plots.interpolation(record, ends=ends) if measured else record.plot()
