"""Fast geometric ensembling (Garipov et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lowland.artifacts import Artifact, Inputs
from lowland.errors import ConfigError
from lowland.posteriors import Posterior
from lowland.runs.cycles import cycles_picture
from lowland.runs.methods.averaging import AveragingMethod
from lowland.runs.methods.base import Part, require_iterates, require_member

if TYPE_CHECKING:
    from lowland.runs.run import Run


class FGE(AveragingMethod):
    """The iterates in the middle of each cycle of a cyclical learning rate."""

    name = "fge"
    title = "FGE ensemble"

    def check(self, run: Run) -> None:
        budget, fge, lr = run.budget, run.config.fge, run.config.average.lr
        if fge.low and not fge.high and not isinstance(lr, str) and fge.low > lr:
            raise ConfigError(f"fge: expected low <= high, which is average.lr, {lr:g}.")
        require_iterates(run, self.title, budget.stored(), 1, run.collection())
        cycles = run.cycles(0)
        steps = cycles.last_epoch * budget.epoch
        settings = f"start {budget.start:g}, cycle {budget.cycle / budget.epoch:g} epochs"
        require_member(self.title, cycles.iterates, steps, settings)

    def trajectories(self, run: Run) -> Sequence[Part]:
        cycles = run.cycles(0)
        if cycles.trajectory is None:
            return [Part(cycles)]
        # it branches off where iterates begin to be averaged
        return [Part(cycles.trajectory, run.budget.before_averaging()), Part(cycles)]

    def trials(self, run: Run) -> Sequence[Part]:
        return super().trials(run) if run.config.fge.needs_lr else []

    def posterior_needs(self, run: Run) -> Sequence[Artifact]:
        return [run.cycles(0)]

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        post: Posterior = inputs[run.cycles(0).name].iterates.ensemble()
        return post

    def pictures(self, run: Run) -> Sequence[Artifact]:
        return [cycles_picture(run.cycles(0))]
