"""Stochastic weight averaging (Izmailov et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lowland.artifacts import Artifact, Inputs
from lowland.runs.iterates import iterate_pictures
from lowland.runs.methods.averaging import AverageMethod
from lowland.runs.methods.base import require_iterates

if TYPE_CHECKING:
    from lowland.runs.run import Run


class SWA(AverageMethod):
    """The mean of the iterates of SGD at a constant learning rate."""

    name = "swa"
    title = "SWA"
    of = "swa"
    extends = True

    def check(self, run: Run) -> None:
        stored = sum(segment.stored for segment in run.averaged_segments(0, self.budget))
        require_iterates(run, self.title, stored, 1, run.collection())

    def pictures(self, run: Run) -> Sequence[Artifact]:
        if not run.config.average.table:
            return ()
        return iterate_pictures(run.iterate_metrics(self.budget))

    def notes(self, run: Run, inputs: Inputs) -> Sequence[str]:
        notes = super().notes(run, inputs)
        if not run.config.average.table:
            return notes
        table = inputs.request(run.iterate_metrics(self.budget))
        heading = (
            f"{self.title}: averaged iterates on test data, the average of the first, and their "
            "ensemble:"
        )
        return [*notes, heading, *str(table).splitlines()]
