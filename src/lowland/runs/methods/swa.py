"""Stochastic weight averaging (Izmailov et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lowland.artifacts import Artifact, Inputs
from lowland.posteriors import PointMass, Posterior
from lowland.runs.methods.base import Method, Part, require_iterates

if TYPE_CHECKING:
    from lowland.runs.run import Run


class SWA(Method):
    """The mean of the iterates of SGD at a constant learning rate."""

    name = "swa"
    title = "SWA"
    extends = True

    def check(self, run: Run) -> None:
        stored = sum(segment.stored for segment in run.averaged_segments(0, self.budget))
        require_iterates(run, self.title, stored, 1, run.collection())

    def parts(self, run: Run) -> Sequence[Part]:
        return [Part(run.averaged(0, self.budget))]

    def needs(self, run: Run) -> Sequence[Artifact]:
        return [run.average(0, "swa", self.budget)]

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        return PointMass(inputs[run.average(0, "swa", self.budget).name])
