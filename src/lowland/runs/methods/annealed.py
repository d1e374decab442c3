"""Methods around the first annealed network: rows of `lowland run` and of `lowland compare`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lowland.artifacts import Inputs
from lowland.core import Point
from lowland.errors import ConfigError
from lowland.posteriors import PointMass, Posterior
from lowland.runs.methods.base import Method, Part

if TYPE_CHECKING:
    from lowland.runs.run import Run


class AnnealedMethod(Method):
    """A method that predicts by the annealed network, and fits some networks and tasks alone."""

    by_request = True

    @abstractmethod
    def misfit(self, run: Run) -> str | None:
        """Why it does not fit a run; None: it does."""

    def check(self, run: Run) -> None:
        if reason := self.misfit(run):
            raise ConfigError(f"methods: {self.name}: {reason}; mend that, or leave it out.")

    def parts(self, run: Run) -> Sequence[Part]:
        return [Part(run.annealed(0))]

    def point(self, run: Run, inputs: Inputs) -> Point:
        """The weights of the annealed network, with their buffers."""
        point: Point = inputs[run.annealed(0).name].point
        return point

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        return PointMass(self.point(run, inputs))
