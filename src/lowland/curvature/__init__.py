"""Curvature of the loss: products with its second derivatives, and what follows from them."""

from lowland.curvature.adaptive import AdaptiveSharpness
from lowland.curvature.average import AverageSharpness
from lowland.curvature.keskar import KeskarSharpness
from lowland.curvature.operators import CurvatureOperator
from lowland.curvature.sam import SAMSharpness
from lowland.curvature.sharpness import sharpness
from lowland.curvature.spectrum import spectrum
from lowland.curvature.trace import hutch_plus_plus, hutchinson
from lowland.curvature.widths import widths

__all__ = [
    "AdaptiveSharpness",
    "AverageSharpness",
    "CurvatureOperator",
    "KeskarSharpness",
    "SAMSharpness",
    "hutch_plus_plus",
    "hutchinson",
    "sharpness",
    "spectrum",
    "widths",
]
