"""MultiSWAG: a mixture of SWAG's Gaussians (Wilson & Izmailov 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowland.runs.methods.base import warn_of_shared_start
from lowland.runs.methods.swag import SWAG

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

    def networks(self, run: Run) -> int:
        return run.config.ensemble
