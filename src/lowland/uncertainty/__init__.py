"""What uncertainty is worth: calibration, other inputs, selective prediction, and baselines."""

from lowland.uncertainty.calibration import fit_temperature, temper
from lowland.uncertainty.corruption import corrupt
from lowland.uncertainty.dropout import mc_dropout
from lowland.uncertainty.laplace import LastLayerLaplace
from lowland.uncertainty.ood import noise_like, ood, uncertainties
from lowland.uncertainty.selective import selective
from lowland.uncertainty.tune_scale import tune_scale

__all__ = [
    "LastLayerLaplace",
    "corrupt",
    "fit_temperature",
    "mc_dropout",
    "noise_like",
    "ood",
    "selective",
    "temper",
    "tune_scale",
    "uncertainties",
]
