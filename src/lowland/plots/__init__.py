"""Figures: one file each, a function `(record, *, ax=None, ...) -> Axes` of that file's name.

Figures depend on records only, and matplotlib is imported when one is drawn. Without `ax=` a
figure has a canvas of its own, outside pyplot: `save(axes, "picture.png")` writes it, and in a
notebook with `%matplotlib inline` the expression `record.plot().figure` displays it.

>>> import torch
>>> from lowland.records import Table
>>> axes = Table({"method": ["SGD", "SWA"], "nll": torch.tensor([0.5, 0.25])}).plot()
>>> axes.get_xlabel()
'nll'
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lowland.errors import ConfigError
from lowland.keywords import hinted
from lowland.plots.style import save as save

# one line per figure
from lowland.plots.barrier import barrier as barrier  # isort: skip
from lowland.plots.cost import cost as cost  # isort: skip
from lowland.plots.cycles import cycles as cycles  # isort: skip
from lowland.plots.diversity import diversity as diversity  # isort: skip
from lowland.plots.evidence import evidence as evidence  # isort: skip
from lowland.plots.functions import functions as functions  # isort: skip
from lowland.plots.growth import growth as growth  # isort: skip
from lowland.plots.interpolation import interpolation as interpolation  # isort: skip
from lowland.plots.iterates import iterates as iterates  # isort: skip
from lowland.plots.linearization import linearization as linearization  # isort: skip
from lowland.plots.path import path as path  # isort: skip
from lowland.plots.posterior import posterior as posterior  # isort: skip
from lowland.plots.predictive import predictive as predictive  # isort: skip
from lowland.plots.rank import rank as rank  # isort: skip
from lowland.plots.reliability import reliability as reliability  # isort: skip
from lowland.plots.risk_coverage import risk_coverage as risk_coverage  # isort: skip
from lowland.plots.samples import samples as samples  # isort: skip
from lowland.plots.selection import selection as selection  # isort: skip
from lowland.plots.sharpness import sharpness as sharpness  # isort: skip
from lowland.plots.shift import shift as shift  # isort: skip
from lowland.plots.similarity import similarity as similarity  # isort: skip
from lowland.plots.spectrum import spectrum as spectrum  # isort: skip
from lowland.plots.surface import surface as surface  # isort: skip
from lowland.plots.surface3d import surface3d as surface3d  # isort: skip
from lowland.plots.table import table as table  # isort: skip
from lowland.plots.tempering import tempering as tempering  # isort: skip
from lowland.plots.ternary import ternary as ternary  # isort: skip
from lowland.plots.trace import trace as trace  # isort: skip
from lowland.plots.training import training as training  # isort: skip
from lowland.plots.widths import widths as widths  # isort: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: name -> function, for functions with the name of their file
FIGURES: dict[str, Callable[..., Axes]] = {
    name: function
    for name, function in list(globals().items())
    if getattr(function, "__module__", "") == f"{__name__}.{name}"
}


def draw(figure: str, record: Any, /, *, ax: Axes | None = None, **options: Any) -> Axes:
    """Draws a record as the figure of that name, on `ax` or on axes of its own."""
    if figure not in FIGURES:
        raise ConfigError(f"figure: expected one of {', '.join(FIGURES)}, got {figure!r}.")
    return hinted(FIGURES[figure])(record, ax=ax, **options)
