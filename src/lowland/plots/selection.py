"""Paired differences of candidates from the default."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lowland.plots.style import canvas, colour, numbers
from lowland.records import Selection

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def selection(record: Selection, *, ax: Axes | None = None) -> Axes:
    """Draws the paired differences from the default with one standard error to either side.

    One row per candidate; the selected one is filled. A candidate whose NLL is not finite has no
    point.

    >>> import torch
    >>> two = torch.tensor([0.5, 0.25])
    >>> record = Selection(["SGD", "SWA"], two, two, two - 0.5, two, "SGD", "SWA")
    >>> selection(record).get_xlabel()
    'validation NLL minus that of SGD (nats)'
    """
    with canvas(ax, size=(5.2, 1.2 + 0.34 * len(record.names))) as ax:
        difference, error = numbers(record.difference), numbers(record.difference_se)
        ax.axvline(0.0, color=colour(1), linewidth=1)
        for i, name in enumerate(record.names):
            if np.isfinite(difference[i]):
                face = colour(0) if name == record.best else "white"
                bar = {"xerr": error[i], "capsize": 3, "color": colour(0)}
                ax.errorbar(difference[i], i, fmt="o", markerfacecolor=face, **bar)
        ax.set_yticks(range(len(record.names)), record.names)
        ax.set_ylim(len(record.names) - 0.5, -0.5)
        if np.nanmax(np.abs(difference[np.isfinite(difference)]), initial=0.0) == 0:
            ax.margins(x=0.2)
        ax.set_xlabel(f"validation NLL minus that of {record.default} (nats)")
        ax.grid(axis="y", visible=False)
    return ax
