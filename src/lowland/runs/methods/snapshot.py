"""Snapshot ensembles (Huang et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowland.runs.cycles import SnapshotCycles
from lowland.runs.methods.cycles import CyclesMethod

if TYPE_CHECKING:
    from lowland.runs.run import Run


class Snapshot(CyclesMethod):
    """The networks at the ends of the cycles of one training with warm restarts."""

    name = "snapshot"
    title = "Snapshot ensemble"

    def label(self, run: Run) -> str:
        return f"{self.title} of {run.config.snapshot.cycles}"

    def cycles(self, run: Run) -> SnapshotCycles:
        return run.snapshot(0)
