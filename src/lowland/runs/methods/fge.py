"""Fast geometric ensembling (Garipov et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lowland.artifacts import Artifact, Inputs
from lowland.posteriors import Posterior
from lowland.runs.cycles import cycles_picture
from lowland.runs.methods.base import Method, Part, require_iterates, require_member

if TYPE_CHECKING:
    from lowland.runs.run import Run


class FGE(Method):
    """The iterates in the middle of each cycle of a cyclical learning rate."""

    name = "fge"
    title = "FGE ensemble"

    def check(self, run: Run) -> None:
        config = run.config
        require_iterates(run, self.title, run.budget.stored(), 1, run.collection())
        cycles = run.cycles(0)
        steps = cycles.last_epoch * run.budget.epoch
        settings = f"start {config.average.start}, cycle {config.fge.cycle} epochs"
        require_member(self.title, cycles.iterates, steps, settings)

    def parts(self, run: Run) -> Sequence[Part]:
        cycles = run.cycles(0)
        if cycles.trajectory is None:
            return [Part(cycles)]
        # it branches off where iterates begin to be averaged
        return [Part(cycles.trajectory, run.budget.before_averaging()), Part(cycles)]

    def needs(self, run: Run) -> Sequence[Artifact]:
        return [run.cycles(0)]

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        post: Posterior = inputs[run.cycles(0).name].iterates.ensemble()
        return post

    def pictures(self, run: Run) -> Sequence[Artifact]:
        return [cycles_picture(run.cycles(0))]
