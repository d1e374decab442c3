"""The loss as a function of one flat weight vector."""

from lowland.core.layout import ParamLayout
from lowland.core.point import Point
from lowland.core.surface import LossSurface
from lowland.core.task import (
    Batch,
    Classification,
    GaussianHead,
    LanguageModeling,
    Regression,
    Task,
)

__all__ = [
    "Batch",
    "Classification",
    "GaussianHead",
    "LanguageModeling",
    "LossSurface",
    "ParamLayout",
    "Point",
    "Regression",
    "Task",
]
