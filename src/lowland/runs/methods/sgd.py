"""One network, trained by SGD with a learning rate that decays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lowland.artifacts import Inputs
from lowland.posteriors import PointMass, Posterior
from lowland.runs.methods.base import Method, Part

if TYPE_CHECKING:
    from lowland.runs.run import Run


class SGD(Method):
    """The last weights of annealed SGD."""

    name = "sgd"
    title = "SGD"

    def parts(self, run: Run) -> Sequence[Part]:
        return [Part(run.annealed(0))]

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        return PointMass(inputs[run.annealed(0).name].point)
