"""ESPRO: an ensemble of simplexes of low loss (Benton et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lowland.artifacts import Artifact, Inputs
from lowland.posteriors import Mixture, Posterior, Uniform
from lowland.runs.methods.base import Method, Part
from lowland.runs.pictures import growth_picture

if TYPE_CHECKING:
    from lowland.runs.run import Run


class ESPRO(Method):
    """Draws from simplexes that grew around annealed networks."""

    name = "espro"
    title = "ESPRO"
    by_request = True  # it costs several times what the others do

    def label(self, run: Run) -> str:
        many = run.config.simplex.components
        return self.title + (f" of {many}" if many > 1 else "")

    def parts(self, run: Run) -> Sequence[Part]:
        numbers = range(run.config.simplex.components)
        annealed = [Part(run.annealed(i)) for i in numbers]
        return [*annealed, *(Part(run.simplex(i)) for i in numbers)]

    def needs(self, run: Run) -> Sequence[Artifact]:
        return [run.simplex(i) for i in range(run.config.simplex.components)]

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        each = [Uniform(inputs[artifact.name].simplex) for artifact in self.needs(run)]
        return each[0] if len(each) == 1 else Mixture(each)

    def pictures(self, run: Run) -> Sequence[Artifact]:
        simplexes = {f"simplex {i + 1}": each for i, each in enumerate(self.needs(run))}
        return [growth_picture("growth", simplexes)]

    def notes(self, run: Run, inputs: Inputs) -> Sequence[str]:
        stopped = [inputs[artifact.name].growth.stop_reason for artifact in self.needs(run)]
        return [f"Simplex {i + 1}: {reason}" for i, reason in enumerate(stopped) if reason]
