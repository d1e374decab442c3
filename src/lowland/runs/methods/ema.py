"""The exponential moving average of all iterates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lowland.artifacts import Artifact, Inputs
from lowland.posteriors import PointMass, Posterior
from lowland.runs.methods.averaging import AveragingMethod

if TYPE_CHECKING:
    from lowland.runs.run import Run


class EMA(AveragingMethod):
    """The moving average of the trajectory that SWA averages."""

    name = "ema"
    title = "EMA"

    def posterior_needs(self, run: Run) -> Sequence[Artifact]:
        return [run.average(0, "ema")]

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        return PointMass(inputs[run.average(0, "ema").name])
