"""Many weight vectors over a loader, model averages, and how good they are."""

from lowland.evaluate.bma import predict
from lowland.evaluate.calibration import fit_temperature, temper
from lowland.evaluate.metrics import reliability
from lowland.evaluate.table import evaluate
from lowland.evaluate.tune import tune_scale

__all__ = ["evaluate", "fit_temperature", "predict", "reliability", "temper", "tune_scale"]
