"""Artifacts of averaged iterates beside their average and ensemble: a table and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lowland import plots
from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.averaging import iterate_metrics
from lowland.files import write_text
from lowland.progress import Report
from lowland.records import IterateTable
from lowland.records.base import Record
from lowland.runs.pictures import Picture
from lowland.runs.records import RecordArtifact

if TYPE_CHECKING:
    from lowland.runs.run import Run


class IterateMetrics(RecordArtifact):
    """Test metrics of the averaged iterates of a trajectory: see `iterate_metrics`.

    Args:
        budget: the multiple of SGD's epochs at which the trajectory ends.
    """

    kind = "iterates"
    version = 2
    record = IterateTable

    def __init__(self, run: Run, budget: float = 1.0) -> None:
        self.run = run
        self.segments = run.averaged_segments(0, budget)
        self.stem = "iterates" if budget == 1 else f"iterates@{budget:g}"
        super().__init__(
            f"tables/{self.stem}",
            [*run.evaluated("test"), *self.segments],
            run.settings(),
            file=f"{self.stem}.json",
            title="evaluate iterates",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> IterateTable:
        setup = self.run.setup
        trained = [inputs[segment.name].iterates for segment in self.segments]
        iterates = chain.from_iterable(trained)
        table = iterate_metrics(setup.surface, iterates, setup.test, progress=progress)
        steps = torch.tensor([step for each in trained for step in each.steps])
        first = {"iterate": table.iterate, "step": steps}
        numbered: IterateTable = replace(table, columns=first | table.columns)
        return numbered

    def save(self, result: Record, folder: Path) -> None:
        super().save(result, folder)
        assert isinstance(result, IterateTable)
        write_text(folder / "record.md", result.to_markdown() + "\n")
        write_text(folder / "record.csv", result.to_csv())
        write_text(folder / "record.tex", result.to_latex() + "\n")

    def view(self) -> Mapping[str, str]:
        endings = "md", "csv", "tex"
        texts = {f"record.{ending}": f"records/{self.stem}.{ending}" for ending in endings}
        return {**super().view(), **texts}


def iterate_pictures(table: IterateMetrics) -> list[Artifact]:
    """A picture of each metric that the table has."""

    def picture(metric: str) -> Picture:
        def draw(record: IterateTable) -> Any:
            return plots.iterates(record, metric=metric) if metric in record.measures else None

        return Picture(f"{table.stem}-{metric}", [table], draw)

    return [picture(metric) for metric in ("error", "rmse", "nll")]
