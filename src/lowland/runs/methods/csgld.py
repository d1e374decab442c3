"""Cyclical stochastic gradient Langevin dynamics (Zhang et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowland.errors import ConfigError
from lowland.runs.cycles import CSGLDCycles
from lowland.runs.methods.cycles import CyclesMethod

if TYPE_CHECKING:
    from lowland.runs.run import Run


class CSGLD(CyclesMethod):
    """Samples of the posterior from the last parts of the cycles of one training."""

    name = "csgld"
    title = "cSGLD"

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
        if run.config.train.sam is not None:
            raise ConfigError(
                "methods: csgld samples the posterior of the loss, and train.sam trains by another "
                "one; leave csgld out, or train without train.sam."
            )
        super().check(run)

    def cycles(self, run: Run) -> CSGLDCycles:
        return run.csgld(0)
