"""See, walk and average over the loss surface of any PyTorch model."""

from importlib.metadata import version as _version

from lowland.core import (
    Batch,
    Classification,
    GaussianHead,
    LanguageModeling,
    LossSurface,
    ParamLayout,
    Point,
    Regression,
    Task,
)
from lowland.errors import (
    ConfigError,
    DataError,
    LayoutError,
    LowlandError,
    NonFiniteError,
    StoreError,
)
from lowland.evaluate import fit_temperature, predict, reliability, temper, tune_scale
from lowland.memory import keep_freed_memory
from lowland.posteriors import Ensemble, Gaussian, Mixture, PointMass, Posterior
from lowland.train import Batches, Members, MemberSGD, sgd, sgd_members
from lowland.trajectory import (
    EMA,
    SWA,
    SWAG,
    Collector,
    ConstantSchedule,
    CyclicalSchedule,
    DecaySchedule,
    Every,
    MidCycle,
    SWASchedule,
    Trajectory,
)

__version__ = _version("lowland")

__all__ = [
    "EMA",
    "SWA",
    "SWAG",
    "Batch",
    "Batches",
    "Classification",
    "Collector",
    "ConfigError",
    "ConstantSchedule",
    "CyclicalSchedule",
    "DataError",
    "DecaySchedule",
    "Ensemble",
    "Every",
    "Gaussian",
    "GaussianHead",
    "LanguageModeling",
    "LayoutError",
    "LossSurface",
    "LowlandError",
    "MemberSGD",
    "Members",
    "MidCycle",
    "Mixture",
    "NonFiniteError",
    "ParamLayout",
    "Point",
    "PointMass",
    "Posterior",
    "Regression",
    "SWASchedule",
    "StoreError",
    "Task",
    "Trajectory",
    "fit_temperature",
    "keep_freed_memory",
    "predict",
    "reliability",
    "sgd",
    "sgd_members",
    "temper",
    "tune_scale",
]
