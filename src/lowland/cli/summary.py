"""Artifacts of the tables and curves of `lowland compare`: mean ± standard error over runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from lowland import plots
from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.cli.aggregate import SE, Metrics, mean_over_runs, paired_differences
from lowland.cli.ood import Corruption
from lowland.cli.predictions import MethodPredictions, examples_of
from lowland.core import Classification, Regression, Task
from lowland.metrics import metric_names
from lowland.progress import Report
from lowland.records import Predictive, RiskCoverage, ShiftCurves, Table
from lowland.runs.pictures import Picture
from lowland.runs.records import RecordArtifact
from lowland.scoring import crps, scores
from lowland.tensor_files import load_tree, save_tree
from lowland.uncertainty import ood, selective

_FILE = "metrics.safetensors"
_KIND = "compare-metrics"


class RunMetrics(TypedDict):
    """The metrics of a method in one run.

    `test`: all, means over corruptions and the first score of each out-of-distribution set
    included. `clean`: of the test examples that were corrupted. `corrupted`: by set.
    `ood`: AUROC and FPR95 by set and score. `crps_of`: of what the CRPS is; empty without one.
    """

    test: dict[str, float]
    clean: dict[str, float]
    corrupted: dict[str, dict[str, float]]
    ood: dict[str, dict[str, dict[str, float]]]
    crps_of: str


@dataclass(frozen=True)
class RowSettings:
    """What changes the metrics of a method, but for its predictions."""

    examples: int


class MethodMetrics(Artifact):
    """The metrics of a method in one run, or of its pool over runs.

    Args:
        corruptions: those of the corrupted sets; the first examples of the test split are clean.
    """

    kind = "method-metrics"
    quick = True

    def __init__(
        self,
        prefix: str,
        predictions: MethodPredictions,
        corruptions: Sequence[Corruption],
        task: Task,
    ) -> None:
        self.predictions = predictions
        self.corruptions = tuple(corruptions)
        self.task = task
        components = [] if predictions.components is None else [predictions.components]
        super().__init__(
            f"metrics/{prefix}/{predictions.key}",
            [*predictions.sets.values(), *components],
            RowSettings(corruptions[0].examples if corruptions else 0),
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> RunMetrics:
        predictions, task = self.predictions, self.task
        test: Predictive = inputs[predictions.test.name]
        metrics = dict(test.metrics())
        crps_of = ""
        if isinstance(task, Classification):
            metrics["aurc"] = selective(test, task=task).aurc
        if isinstance(task, Regression):
            metrics |= scores(test)
            mixture = predictions.components
            components = None if mixture is None else inputs[mixture.name]
            crps_of = "Gaussian" if components is None else "mixture"
            if components is not None and test.targets is not None:
                metrics["crps"] = float(crps(test.targets, *components).mean())
        sets = predictions.sets
        corrupted = {each.name: inputs[sets[each.name].name].metrics() for each in self.corruptions}
        clean = {}
        if corrupted:
            clean = examples_of(test, 0, self.corruptions[0].examples, task).metrics()
            for name in metric_names():
                if name in clean:
                    mean = sum(each[name] for each in corrupted.values()) / len(corrupted)
                    metrics[f"{name}_corrupted"] = mean
        separation: dict[str, dict[str, dict[str, float]]] = {}
        for name, artifact in predictions.ood.items():
            table = ood(test, inputs[artifact.name], task=task)
            separation[name] = {
                row.pop("score"): {key: float(value) for key, value in row.items()}
                for row in table.rows()
            }
            first = next(iter(separation[name].values()))
            metrics |= {f"auroc_{name}": first["auroc"], f"fpr95_{name}": first["fpr95"]}
        metrics["samples"] = float(test.samples)
        return {
            "test": metrics,
            "clean": clean,
            "corrupted": corrupted,
            "ood": separation,
            "crps_of": crps_of,
        }

    def save(self, result: RunMetrics, folder: Path) -> None:
        save_tree(folder / _FILE, result, kind=_KIND)

    def load(self, folder: Path) -> RunMetrics:
        metrics: RunMetrics = load_tree(folder / _FILE, kind=_KIND, form=RunMetrics)
        return metrics


@dataclass(frozen=True)
class MethodRow:
    """A method in the tables.

    Attributes:
        runs: its metrics in each run; one alone for a pool over runs. predictions: the same.
    """

    key: str
    title: str
    runs: tuple[MethodMetrics, ...]
    predictions: tuple[MethodPredictions, ...]


@dataclass(frozen=True)
class TableSettings:
    """The rows of a table in their order, and whether it has standard errors."""

    titles: tuple[str, ...]
    many: bool
    corruptions: tuple[str, ...]


class SummaryTable(RecordArtifact):
    """A table of all methods."""

    quick = True
    record = Table

    def __init__(
        self, rows: Sequence[MethodRow], name: str, corruptions: Sequence[Corruption] = ()
    ) -> None:
        self.rows = rows
        self.corruptions = corruptions
        self.many = any(len(row.runs) > 1 for row in rows)
        super().__init__(
            f"tables/{name}",
            [each for row in rows for each in row.runs],
            TableSettings(
                tuple(row.title for row in rows),
                self.many,
                tuple(each.name for each in corruptions),
            ),
            file=f"{name}.json",
        )

    def metrics(self, row: MethodRow, inputs: Inputs) -> list[RunMetrics]:
        """The metrics of a method in each run."""
        return [inputs[each.name] for each in row.runs]

    def mean(self, runs: Sequence[Metrics]) -> dict[str, float]:
        """The mean over runs, with standard errors where any method has several."""
        return mean_over_runs(runs, errors=self.many)


class ComparisonTable(SummaryTable):
    """A row a method: test metrics, their mean over corruptions, AUROC by the first score."""

    kind = "comparison-table"

    def __init__(self, rows: Sequence[MethodRow]) -> None:
        super().__init__(rows, "comparison")

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Table:
        rows: list[dict[str, Any]] = []
        for row in self.rows:
            runs = self.metrics(row, inputs)
            words: dict[str, Any] = {"method": row.title}
            if runs[0]["crps_of"]:
                exact = all(run["crps_of"] == "mixture" for run in runs)
                words["crps_of"] = "mixture" if exact else "Gaussian"
            means = self.mean([run["test"] for run in runs])
            rows.append({**words, "runs": float(len(runs)), **means})
        return Table.from_rows(rows)


class DifferencesTable(SummaryTable):
    """The metrics of each method minus those of the first, run by run."""

    kind = "differences-table"

    def __init__(self, rows: Sequence[MethodRow]) -> None:
        super().__init__(rows, "differences")

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Table:
        return paired_differences(
            {row.title: [run["test"] for run in self.metrics(row, inputs)] for row in self.rows}
        )


class ShiftTable(SummaryTable):
    """A row a method, kind and strength; strength 0 are the clean examples."""

    kind = "shift-table"

    def __init__(self, rows: Sequence[MethodRow], corruptions: Sequence[Corruption]) -> None:
        super().__init__(rows, "shift", corruptions)

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Table:
        rows: list[dict[str, Any]] = []
        for row in self.rows:
            runs = self.metrics(row, inputs)
            sets = [("clean", 0, [run["clean"] for run in runs])]
            for each in self.corruptions:
                metrics = [run["corrupted"][each.name] for run in runs]
                sets.append((each.kind, each.strength, metrics))
            for kind, strength, metrics in sets:
                words = {"method": row.title, "kind": kind, "strength": float(strength)}
                rows.append(words | self.mean(metrics))
        return Table.from_rows(rows)


class OODTable(SummaryTable):
    """A row a method, set and score: AUROC and FPR95."""

    kind = "ood-table"

    def __init__(self, rows: Sequence[MethodRow]) -> None:
        super().__init__(rows, "ood")

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Table:
        rows: list[dict[str, Any]] = []
        for row in self.rows:
            runs = self.metrics(row, inputs)
            for name in row.predictions[0].ood:
                for score in runs[0]["ood"][name]:
                    words = {"method": row.title, "set": name, "score": score}
                    rows.append(words | self.mean([run["ood"][name][score] for run in runs]))
        return Table.from_rows(rows)


@dataclass(frozen=True)
class CurveSettings:
    """The corrupted sets of a curve in their order."""

    corruptions: tuple[str, ...]


class ShiftRecord(RecordArtifact):
    """The metrics of a method against the strength of corruption."""

    kind = "shift-curves"
    quick = True
    record = ShiftCurves

    def __init__(self, row: MethodRow, corruptions: Sequence[Corruption]) -> None:
        self.row = row
        self.corruptions = corruptions
        file = f"shift-{file_part(row.title)}.json"
        settings = CurveSettings(tuple(each.name for each in corruptions))
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
        tests = [each.test for each in row.predictions]
        super().__init__(f"risk/{row.key}", tests, file=file)

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> RiskCoverage:
        curves = [selective(inputs[each.name], task=self.task) for each in self.inputs]
        risk = torch.stack([each.risk for each in curves]).mean(0)
        return RiskCoverage(curves[0].coverage, risk)


def file_part(title: str) -> str:
    """A title as part of the name of a file.

    >>> file_part("SGD, tempered")
    'sgd-tempered'
    """
    return title.lower().replace(",", "").replace(" ", "-")


def _column(points: list[dict[str, float]], name: str) -> Tensor:
    return torch.tensor([point[name] for point in points], dtype=torch.float64)


class SelectivePicture(Picture):
    """The error against coverage, a line a method."""

    def __init__(self, records: Mapping[str, RiskRecord]) -> None:
        self.records = records
        super().__init__("selective", list(records.values()), list(records))

    def draw(self, inputs: Inputs) -> Any:
        return plots.risk_coverage({title: inputs[r.name] for title, r in self.records.items()})


class ShiftPicture(Picture):
    """A metric against the strength of corruption, a line a method."""

    def __init__(self, records: Mapping[str, ShiftRecord], metric: str) -> None:
        self.records = records
        self.metric = metric
        super().__init__(f"shift-{metric}", list(records.values()), list(records))

    def draw(self, inputs: Inputs) -> Any:
        curves = {title: inputs[each.name] for title, each in self.records.items()}
        names = {name for one in curves.values() for kind in one.curves.values() for name in kind}
        return plots.shift(curves, metric=self.metric) if self.metric in names else None
