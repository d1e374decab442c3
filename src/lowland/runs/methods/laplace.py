"""The last-layer Laplace approximation (MacKay 1992, Daxberger et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lowland.artifacts import Artifact, Inputs
from lowland.errors import LowlandError
from lowland.progress import Progress
from lowland.records import Predictive
from lowland.runs.methods.annealed import AnnealedMethod
from lowland.runs.methods.base import Tuned
from lowland.uncertainty import LastLayerLaplace
from lowland.uncertainty.laplace import laplace_class

if TYPE_CHECKING:
    from lowland.runs.run import Run


class Laplace(AnnealedMethod):
    """laplace-torch around the annealed network, its prior chosen on validation examples."""

    name = "laplace"
    title = "Last-layer Laplace"

    def __init__(self) -> None:
        self._approximation: LastLayerLaplace | None = None

    def misfit(self, run: Run) -> str | None:
        if run.retrains:
            return "its prior needs validation examples, and average.retrain trains on them"
        try:
            laplace_class()
        except LowlandError as error:
            return str(error).rstrip(".")
        return None

    def needs(self, run: Run) -> Sequence[Artifact]:
        return [run.annealed(0), *run.named_sources("data/validation")]

    def approximation(self, run: Run, inputs: Inputs) -> LastLayerLaplace:
        """The approximation, fitted once for all loaders."""
        if self._approximation is None:
            surface, validation = run.setup.surface, run.setup.validation
            point = self.point(run, inputs)
            self._approximation = LastLayerLaplace(surface, point, validation=validation)
        return self._approximation

    def predict(
        self, run: Run, inputs: Inputs, tuned: Tuned, loader: Iterable[Any], progress: Progress
    ) -> Predictive:
        return self.approximation(run, inputs).predict(loader, progress=progress)
