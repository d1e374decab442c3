"""Temperature scaling (Guo et al. 2017): SGD's probabilities, softened by one number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lowland.artifacts import Inputs
from lowland.core import Classification
from lowland.errors import ConfigError
from lowland.posteriors import PointMass, Posterior
from lowland.progress import Progress
from lowland.records import Predictive
from lowland.runs.methods.base import Method, Part, Tuned
from lowland.uncertainty import temper

if TYPE_CHECKING:
    from lowland.runs.run import Run


class TemperatureScaling(Method):
    """The temperature of the lowest NLL on validation examples."""

    name = "temperature"
    title = "SGD, tempered"
    by_request = True

    def check(self, run: Run) -> None:
        if not isinstance(run.setup.task, Classification):
            raise ConfigError(
                f"methods: temperature is for classification, not for "
                f"{type(run.setup.task).__name__}; leave it out."
            )

    def parts(self, run: Run) -> Sequence[Part]:
        return [Part(run.annealed(0))]

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        return PointMass(inputs[run.annealed(0).name].point)

    def predict(
        self, run: Run, inputs: Inputs, tuned: Tuned, loader: Iterable[Any], progress: Progress
    ) -> Predictive:
        pred = super().predict(run, inputs, tuned, loader, progress)
        # before it is fitted, on the probabilities as they are
        return temper(pred, tuned["temperature"]) if "temperature" in tuned else pred
