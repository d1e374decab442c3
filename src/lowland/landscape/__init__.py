"""The surface, looked at: along lines, on planes, around a point."""

from lowland.landscape.directions import directions
from lowland.landscape.scan import Forecast, forecast, scan

__all__ = ["Forecast", "directions", "forecast", "scan"]
