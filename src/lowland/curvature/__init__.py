"""Curvature of the loss: products with its second derivatives, and what follows from them."""

from lowland.curvature.adaptive import AdaptiveSharpness
from lowland.curvature.average import AverageSharpness
from lowland.curvature.keskar import KeskarSharpness
from lowland.curvature.sam import SAMSharpness
from lowland.curvature.sharpness import sharpness
from lowland.curvature.widths import widths

__all__ = [
    "AdaptiveSharpness",
    "AverageSharpness",
    "KeskarSharpness",
    "SAMSharpness",
    "sharpness",
    "widths",
]
