"""How well subspaces explain the data, beside one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lowland.plots.style import canvas, colour, named
from lowland.records import Evidence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ERRORS = 2  # standard errors to either side


def evidence(record: Evidence | Mapping[str, Evidence], *, ax: Axes | None = None) -> Axes:
    """Draws log evidences with two standard errors to either side, a row a subspace.

    >>> record = Evidence(-12.5, 0.25, "tempering", 1000)
    >>> evidence({"PCA": record, "random": Evidence(-20.0, 0.0, "grid", 100)}).get_xlabel()
    'log evidence (nats), \u00b1 2 standard errors'
    """
    each = named(record)
    with canvas(ax, size=(5.2, 1.2 + 0.4 * len(each))) as ax:
        for i, one in enumerate(each.values()):
            ax.errorbar(
                one.log_evidence,
                i,
                xerr=_ERRORS * one.error,
                fmt="o",
                color=colour(0),
                capsize=3,
            )
        ax.set_yticks(range(len(each)), [name or "subspace" for name in each])
        ax.set_ylim(len(each) - 0.5, -0.5)
        values = np.array([one.log_evidence for one in each.values()])
        if np.ptp(values) == 0:
            ax.margins(x=0.2)
        ax.set_xlabel(f"log evidence (nats), \u00b1 {_ERRORS} standard errors")
        ax.grid(axis="y", visible=False)
    return ax
