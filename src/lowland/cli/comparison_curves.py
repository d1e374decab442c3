"""Artifacts of the curves of `lowland compare`: metrics under corruption, risk against coverage."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lowland import plots
from lowland.artifacts import Checkpoint, Inputs
from lowland.cli.aggregate import mean_over_runs
from lowland.cli.method_metrics import MethodRow, RunMetrics
from lowland.cli.ood import Corruption
from lowland.core import Task
from lowland.metrics import metric_names
from lowland.progress import Report
from lowland.records import RiskCoverage, ShiftCurves
from lowland.records.table import SE
from lowland.runs.pictures import Picture, picture_of_lines
from lowland.runs.records import RecordArtifact
from lowland.uncertainty import selective


class ShiftRecord(RecordArtifact):
    """The metrics of a method against the strength of corruption."""

    kind = "shift-curves"
    quick = True
    record = ShiftCurves

    def __init__(self, row: MethodRow, corruptions: Sequence[Corruption]) -> None:
        self.row = row
        self.corruptions = corruptions
        file = f"shift-{file_part(row.title)}.json"
        settings = {"corruptions": [each.name for each in corruptions]}
        super().__init__(f"shift/{row.key}", row.runs, settings, file=file)

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> ShiftCurves:
        runs: list[RunMetrics] = [inputs[each.name] for each in self.row.runs]
        kinds: dict[str, list[Corruption]] = {}
        for each in sorted(self.corruptions, key=lambda each: each.strength):
            kinds.setdefault(each.kind, []).append(each)
        means: dict[str, dict[str, Tensor]] = {}
        errors: dict[str, dict[str, Tensor]] = {}
        for kind, sets in kinds.items():
            curves = [[run["clean"], *(run["corrupted"][one.name] for one in sets)] for run in runs]
            points = [mean_over_runs(each) for each in zip(*curves, strict=True)]
            means[kind] = {n: _column(points, n) for n in metric_names() if n in points[0]}
            if len(runs) > 1:
                errors[kind] = {n: _column(points, n + SE) for n in means[kind]}
        strengths = [0, *(each.strength for each in next(iter(kinds.values())))]
        return ShiftCurves(torch.tensor(strengths), means, errors)


class RiskRecord(RecordArtifact):
    """The error of a classifier against coverage, the mean over runs."""

    kind = "risk-coverage"
    quick = True
    record = RiskCoverage

    def __init__(self, row: MethodRow, task: Task) -> None:
        self.task = task
        file = f"selective-{file_part(row.title)}.npz"
        tests = [each.predictions.test for each in row.runs]
        super().__init__(f"risk/{row.key}", tests, file=file)

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> RiskCoverage:
        curves = [selective(inputs[each.name], task=self.task) for each in self.inputs]
        risk = torch.stack([each.risk for each in curves]).mean(0)
        return RiskCoverage(curves[0].coverage, risk)


def file_part(title: str) -> str:
    """A title as part of the name of a file.

    >>> file_part("SGD + temperature scaling")
    'sgd-temperature-scaling'
    """
    return re.sub(r"\W+", "-", title.lower())


def _column(points: list[dict[str, float]], name: str) -> Tensor:
    return torch.tensor([point[name] for point in points], dtype=torch.float64)


def selective_picture(records: Mapping[str, RiskRecord]) -> Picture:
    """The error against coverage, a line a method."""
    return picture_of_lines("selective", records, lambda lines: plots.risk_coverage(lines))


def shift_picture(records: Mapping[str, ShiftRecord], metric: str) -> Picture:
    """A metric against the strength of corruption, a line a method."""

    def draw(lines: dict[str, ShiftCurves]) -> Any:
        names = {name for one in lines.values() for kind in one.curves.values() for name in kind}
        return plots.shift(lines, metric=metric) if metric in names else None

    return picture_of_lines(f"shift-{metric}", records, draw)
