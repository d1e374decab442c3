"""Many weight vectors over a loader, model averages, and how good they are."""

from lowland.evaluate.bma import predict
from lowland.evaluate.calibration import fit_temperature, temper
from lowland.evaluate.corruption import corrupt
from lowland.evaluate.dropout import mc_dropout
from lowland.evaluate.functions import functions, regular_grid
from lowland.evaluate.laplace import LastLayerLaplace
from lowland.evaluate.likelihood import LogLikelihood
from lowland.evaluate.ood import noise_like, ood, uncertainties
from lowland.evaluate.pool import pool
from lowland.evaluate.reliability import reliability
from lowland.evaluate.scores import crps, scores
from lowland.evaluate.selective import selective
from lowland.evaluate.table import evaluate
from lowland.evaluate.tune import tune_scale

__all__ = [
    "LastLayerLaplace",
    "LogLikelihood",
    "corrupt",
    "crps",
    "evaluate",
    "fit_temperature",
    "functions",
    "mc_dropout",
    "noise_like",
    "ood",
    "pool",
    "predict",
    "regular_grid",
    "reliability",
    "scores",
    "selective",
    "temper",
    "tune_scale",
    "uncertainties",
]
