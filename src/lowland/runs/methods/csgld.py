"""Cyclical stochastic gradient Langevin dynamics (Zhang et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lowland.artifacts import Artifact, Inputs
from lowland.errors import ConfigError
from lowland.posteriors import Posterior
from lowland.runs.cycles import cycles_picture
from lowland.runs.methods.base import Method, Part

if TYPE_CHECKING:
    from lowland.runs.run import Run


class CSGLD(Method):
    """Samples of the posterior from the last parts of the cycles of one training."""

    name = "csgld"
    title = "cSGLD"
    by_request = True

    def label(self, run: Run) -> str:
        settings = run.config.csgld
        return f"{self.title} of {settings.cycles} x {settings.members}"

    def check(self, run: Run) -> None:
        optimizer = run.config.train.optimizer
        if optimizer.lower() != "sgd":
            raise ConfigError(
                f"methods: csgld adds its noise to steps of SGD: expected train.optimizer: SGD, "
                f"got {optimizer}; leave csgld out, or train by SGD."
            )
        run.csgld(0)

    def parts(self, run: Run) -> Sequence[Part]:
        return [Part(run.csgld(0))]

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        post: Posterior = inputs[run.csgld(0).name].iterates.ensemble()
        return post

    def pictures(self, run: Run) -> Sequence[Artifact]:
        return [cycles_picture(run.csgld(0))]
