"""Methods whose members are collected in the cycles of one training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lowland.artifacts import Artifact, Inputs
from lowland.posteriors import Posterior
from lowland.runs.cycles import CyclesTraining, cycles_picture
from lowland.runs.methods.base import Method, Part

if TYPE_CHECKING:
    from lowland.runs.run import Run


class CyclesMethod(Method):
    """An ensemble of the members of a training in cycles, from a fresh network."""

    by_request = True

    @abstractmethod
    def cycles(self, run: Run) -> CyclesTraining:
        """The training; raises `ConfigError` where its cycles do not fit the budget."""

    def check(self, run: Run) -> None:
        self.cycles(run)

    def parts(self, run: Run) -> Sequence[Part]:
        return [Part(self.cycles(run))]

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        post: Posterior = inputs[self.cycles(run).name].iterates.ensemble()
        return post

    def pictures(self, run: Run) -> Sequence[Artifact]:
        return [cycles_picture(self.cycles(run))]
