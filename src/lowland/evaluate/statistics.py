"""Whose BatchNorm statistics the points of a shape are evaluated with."""

from __future__ import annotations

from lowland.core import LossSurface
from lowland.errors import ConfigError
from lowland.geometry import Shape


def require_statistics(shape: Shape, surface: LossSurface, batchnorm: str) -> None:
    """Raises `ConfigError` where frozen statistics would be others than a user may think.

    Points of a shape are weights alone: there is nothing between the statistics of two networks
    that would fit the weights between them, so that the model's would stand in for the ends' own.
    """
    if batchnorm == "frozen" and surface.has_batchnorm and shape.buffered:
        raise ConfigError(
            "batchnorm: 'frozen' takes the model's statistics at every point, not those of the "
            f"Point that the {type(shape).__name__} was made of; take 'refresh', or make the "
            "surface of a model that has the statistics you mean, and the shape of weights alone "
            "(point.weights)."
        )
