"""The surface seen: along curves, on planes, between minima, and how alike weights are."""

from lowland.landscape.barrier import barrier
from lowland.landscape.directions import directions
from lowland.landscape.overlays import overlay
from lowland.landscape.path import path
from lowland.landscape.scan import Forecast, forecast, scan
from lowland.landscape.similarity import similarity
from lowland.landscape.ternary import ternary

__all__ = [
    "Forecast",
    "barrier",
    "directions",
    "forecast",
    "overlay",
    "path",
    "scan",
    "similarity",
    "ternary",
]
