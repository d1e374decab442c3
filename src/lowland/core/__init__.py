"""The loss as a function of one flat weight vector."""

from lowland.core.classification import Classification
from lowland.core.language import LanguageModeling
from lowland.core.layout import ParamLayout
from lowland.core.options import EvalOptions
from lowland.core.point import Point
from lowland.core.regression import GaussianHead, Regression
from lowland.core.surface import LossSurface
from lowland.core.task import Batch, Task

__all__ = [
    "Batch",
    "Classification",
    "EvalOptions",
    "GaussianHead",
    "LanguageModeling",
    "LossSurface",
    "ParamLayout",
    "Point",
    "Regression",
    "Task",
]
