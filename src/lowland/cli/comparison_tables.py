"""Artifacts of the tables of `lowland compare`: mean ± standard error over runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from lowland.artifacts import Checkpoint, Inputs
from lowland.cli.aggregate import Metrics, mean_over_runs, paired_differences
from lowland.cli.method_metrics import MethodRow, RunMetrics
from lowland.cli.ood import Corruption
from lowland.progress import Report
from lowland.records import Table
from lowland.runs.records import RecordArtifact

RowMetrics = tuple[MethodRow, Sequence[RunMetrics]]  # a method, and its metrics in each run


class SummaryTable(RecordArtifact):
    """A table of all methods.

    Attributes:
        table: its name.
    """

    quick = True
    record = Table
    table: ClassVar[str]

    def __init__(self, rows: Sequence[MethodRow], corruptions: Sequence[Corruption] = ()) -> None:
        self.rows = rows
        self.corruptions = corruptions
        self.many = any(len(row.runs) > 1 for row in rows)
        super().__init__(
            f"tables/{self.table}",
            [each for row in rows for each in row.runs],
            {
                "titles": [row.title for row in rows],
                "many": self.many,
                "corruptions": [each.name for each in corruptions],
            },
            file=f"{self.table}.json",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Table:
        return self.compute([(row, [inputs[each.name] for each in row.runs]) for row in self.rows])

    @abstractmethod
    def compute(self, methods: Sequence[RowMetrics]) -> Table:
        """The table of the metrics of each method."""

    def mean(self, runs: Sequence[Metrics]) -> dict[str, float]:
        """The mean over runs, with standard errors where any method has several."""
        return mean_over_runs(runs, errors=self.many)


class ComparisonTable(SummaryTable):
    """A row a method: test metrics, their mean over corruptions, AUROC by the first score."""

    kind = "comparison-table"
    table = "comparison"

    def compute(self, methods: Sequence[RowMetrics]) -> Table:
        entries: list[dict[str, Any]] = []
        for row, runs in methods:
            words = {"method": row.title}
            if runs[0]["crps_of"]:
                exact = all(run["crps_of"] == "mixture" for run in runs)
                words["crps_of"] = "mixture" if exact else "Gaussian"
            means = self.mean([run["test"] for run in runs])
            entries.append({**words, "runs": float(len(runs)), **means})
        return Table.from_rows(entries)


class DifferencesTable(SummaryTable):
    """The metrics of each method minus those of the first, run by run."""

    kind = "differences-table"
    table = "differences"

    def compute(self, methods: Sequence[RowMetrics]) -> Table:
        return paired_differences(
            {row.title: [run["test"] for run in runs] for row, runs in methods}
        )


class ShiftTable(SummaryTable):
    """A row a method, kind and strength; strength 0 are the clean examples."""

    kind = "shift-table"
    table = "shift"

    def compute(self, methods: Sequence[RowMetrics]) -> Table:
        entries: list[dict[str, Any]] = []
        for row, runs in methods:
            sets = [("clean", 0, [run["clean"] for run in runs])]
            for each in self.corruptions:
                metrics = [run["corrupted"][each.name] for run in runs]
                sets.append((each.kind, each.strength, metrics))
            for kind, strength, metrics in sets:
                words = {"method": row.title, "kind": kind, "strength": float(strength)}
                entries.append(words | self.mean(metrics))
        return Table.from_rows(entries)


class OODTable(SummaryTable):
    """A row a method, set and score: AUROC and FPR95."""

    kind = "ood-table"
    table = "ood"

    def compute(self, methods: Sequence[RowMetrics]) -> Table:
        return Table.from_rows(
            {"method": row.title, "set": name, "score": score}
            | self.mean([run["ood"][name][score] for run in runs])
            for row, runs in methods
            for name in row.runs[0].predictions.ood
            for score in runs[0]["ood"][name]
        )
