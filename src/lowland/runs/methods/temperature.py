"""Temperature scaling (Guo et al. 2017): SGD's probabilities, softened by one number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowland.core import Classification
from lowland.records import Predictive
from lowland.runs.methods.annealed import AnnealedMethod
from lowland.runs.methods.base import Tuned
from lowland.uncertainty import temper

if TYPE_CHECKING:
    from lowland.runs.run import Run


class TemperatureScaling(AnnealedMethod):
    """The temperature of the lowest NLL on validation examples."""

    name = "temperature"
    title = "SGD + temperature scaling"

    def misfit(self, run: Run) -> str | None:
        task = run.setup.task
        if isinstance(task, Classification):
            return None
        return f"it is for classification, not for {type(task).__name__}"

    def calibrated(self, pred: Predictive, tuned: Tuned) -> Predictive:
        # before it is fitted, the probabilities as they are
        return temper(pred, tuned["temperature"]) if "temperature" in tuned else pred
