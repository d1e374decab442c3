"""Snapshot ensembles (Huang et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lowland.artifacts import Artifact, Inputs
from lowland.posteriors import Posterior
from lowland.runs.cycles import cycles_picture
from lowland.runs.methods.base import Method, Part

if TYPE_CHECKING:
    from lowland.runs.run import Run


class Snapshot(Method):
    """The networks at the ends of the cycles of one training with warm restarts."""

    name = "snapshot"
    title = "Snapshot ensemble"
    by_request = True

    def label(self, run: Run) -> str:
        return f"{self.title} of {run.config.snapshot.cycles}"

    def check(self, run: Run) -> None:
        run.snapshot(0)

    def parts(self, run: Run) -> Sequence[Part]:
        return [Part(run.snapshot(0))]

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        post: Posterior = inputs[run.snapshot(0).name].iterates.ensemble()
        return post

    def pictures(self, run: Run) -> Sequence[Artifact]:
        return [cycles_picture(run.snapshot(0))]
