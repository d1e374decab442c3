"""Deep ensembles (Lakshminarayanan et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lowland.artifacts import Inputs
from lowland.posteriors import Ensemble, Posterior
from lowland.runs.methods.base import Method, Part, warn_of_shared_start

if TYPE_CHECKING:
    from lowland.runs.run import Run


class DeepEnsemble(Method):
    """Independent networks, trained from other first weights in another order of examples."""

    name = "ensemble"
    title = "Deep ensemble"

    def label(self, run: Run) -> str:
        return f"{self.title} of {run.config.ensemble}"

    def check(self, run: Run) -> None:
        warn_of_shared_start(run, self.label(run))

    def parts(self, run: Run) -> Sequence[Part]:
        return [Part(run.annealed(i)) for i in range(run.config.ensemble)]

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        return Ensemble([inputs[part.artifact.name].point for part in self.parts(run)])
