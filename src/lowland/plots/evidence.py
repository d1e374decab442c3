"""Log evidences of subspaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lowland.plots.style import by_label, canvas, colour
from lowland.records import Evidence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ERRORS = 2  # standard errors to either side


def evidence(record: Evidence | Mapping[str, Evidence], *, ax: Axes | None = None) -> Axes:
    """Draws log evidences with two standard errors to either side, one row per subspace.

    >>> record = Evidence(-12.5, 0.25, "tempering", 1000)
    >>> evidence({"PCA": record, "random": Evidence(-20.0, 0.0, "grid", 100)}).get_xlabel()
    'log evidence (nats), \u00b1 2 standard errors'
    """
    records = by_label(record)
    with canvas(ax, size=(5.2, 1.2 + 0.4 * len(records))) as ax:
        for i, result in enumerate(records.values()):
            ax.errorbar(
                result.log_evidence,
                i,
                xerr=_ERRORS * result.error,
                fmt="o",
                color=colour(0),
                capsize=3,
            )
        ax.set_yticks(range(len(records)), [name or "subspace" for name in records])
        ax.set_ylim(len(records) - 0.5, -0.5)
        values = np.array([result.log_evidence for result in records.values()])
        if np.ptp(values) == 0:
            ax.margins(x=0.2)
        ax.set_xlabel(f"log evidence (nats), \u00b1 {_ERRORS} standard errors")
        ax.grid(axis="y", visible=False)
    return ax
