"""MultiSWAG: a mixture of SWAG's Gaussians (Wilson & Izmailov 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lowland.artifacts import Inputs
from lowland.posteriors import Mixture, Posterior
from lowland.runs.methods.base import Part, warn_of_shared_start
from lowland.runs.methods.swag import SWAG, gaussian

if TYPE_CHECKING:
    from lowland.runs.run import Run


class MultiSWAG(SWAG):
    """One Gaussian around each of several independent networks."""

    name = "multiswag"
    title = "MultiSWAG"
    extends = False  # its networks share the budget of the deep ensemble

    def label(self, run: Run) -> str:
        return f"{self.title} of {run.config.ensemble}"

    def check(self, run: Run) -> None:
        super().check(run)
        warn_of_shared_start(run, self.label(run))

    def parts(self, run: Run) -> Sequence[Part]:
        return [Part(run.averaged(i)) for i in range(run.config.ensemble)]

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        rank = run.config.average.rank
        return Mixture([gaussian(run, inputs, i, rank) for i in range(run.config.ensemble)])
