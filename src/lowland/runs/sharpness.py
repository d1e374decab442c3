"""Artifacts of `lowland sharpness`: measures at the weights of a run, their table and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from lowland import plots
from lowland.artifacts import Artifact, Checkpoint, Inputs, Source
from lowland.geometry import Line
from lowland.landscape import path
from lowland.progress import Report
from lowland.records import PathResult, Table, WidthsResult
from lowland.runs.measures import (
    EigenvectorWidths,
    Losses,
    RandomWidths,
    Sharpness,
    SharpnessOptions,
    Spectrum,
    SWAGWidths,
    WeightsMeasure,
)
from lowland.runs.pictures import Picture, picture_of_lines
from lowland.runs.records import RecordArtifact

if TYPE_CHECKING:
    from lowland.runs.run import Run


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
    run: Run, weights: Sequence[Source], options: SharpnessOptions, *, swag: Source | None = None
) -> list[Artifact]:
    """The table of the measures and their pictures: what stands on everything else.

    `swag`: a `SWAG`, along whose components rays go.
    """
    rows: list[list[WeightsMeasure]] = [[Losses(run, each, options)] for each in weights]
    pictures: list[Artifact] = []

    def add(measures: Sequence[WeightsMeasure]) -> None:
        for row, measure in zip(rows, measures, strict=True):
            row.append(measure)

    for kind in options.kinds:
        sharp = [Sharpness(run, each, options, measure=kind) for each in weights]
        add(sharp)
        pictures.append(_picture(f"sharpness-{kind}", sharp, plots.sharpness))
    if options.eigenvalues or options.probes:
        spectra = [Spectrum(run, each, options) for each in weights]
        add(spectra)
        if options.probes:
            pictures += [Picture(f"spectrum-{s.label}", [s], plots.spectrum) for s in spectra]
        if options.eigenvalues:
            along = [EigenvectorWidths(each) for each in spectra]
            add(along)
            pictures += [Picture(f"rays-eigenvectors-{w.label}", [w], plots.widths) for w in along]
    rays: dict[str, list[Any]] = {"rays": [RandomWidths(run, each, options) for each in weights]}
    if swag is not None:
        rays["rays-swag"] = [SWAGWidths(run, each, options, swag) for each in weights]
    for name, wide in rays.items():
        add(wide)
        pictures.append(_picture(f"{name}-loss", wide, plots.widths))
        pictures.append(_picture(f"{name}-test-error", wide, _draw_test_error))
    others = [w for w in weights if not torch.equal(w.value.weights, weights[0].value.weights)]
    if others:
        line = LineBetween(run, [weights[0], others[0]], options)
        pictures.append(Picture("line", [line], partial(_draw_line, ends=line.labels)))
    return [SharpnessTable([measure for row in rows for measure in row]), *pictures]


def _picture(name: str, measures: Iterable[WeightsMeasure], draw: Callable[..., Any]) -> Picture:
    return picture_of_lines(name, {each.label: each for each in measures}, draw)


def _draw_test_error(records: dict[str, WidthsResult]) -> Any:
    measured = all("test_error" in record.metrics for record in records.values())
    return plots.widths(records, metric="test_error") if measured else None


def _draw_line(record: PathResult, *, ends: tuple[str, str]) -> Any:
    measured = bool(record.error.isfinite().any())  # no error of a regression
    return plots.interpolation(record, ends=ends) if measured else record.plot()
