"""The pretrained network that trainings start from, as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowland.artifacts import Inputs
from lowland.errors import ConfigError
from lowland.posteriors import PointMass, Posterior
from lowland.runs.methods.base import Method

if TYPE_CHECKING:
    from lowland.runs.run import Run


class Pretrained(Method):
    """The network of `start_from`: what training and averages have to improve on."""

    name = "pretrained"
    title = "Pretrained"
    by_request = True

    def check(self, run: Run) -> None:
        if run.config.start_from is None:
            raise ConfigError("methods: pretrained needs start_from; name a checkpoint there.")

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        setup = run.setup
        return PointMass(setup.surface.point(setup.model(0)))
