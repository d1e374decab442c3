"""A table as dots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from lowland.errors import ConfigError
from lowland.metrics import metric_of
from lowland.plots.scales import log_where_wide
from lowland.plots.style import INK, MUTED, SMALL, canvas, colour, numbers
from lowland.records import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def table(
    record: Table, *, ax: Axes | None = None, column: str | None = None, best: str | None = None
) -> Axes:
    """Draws one numeric column, a dot for each row, and marks the best.

    Args:
        column: "nll" by default, or the first numeric one.
        best: "min" or "max"; by default the metric's, see `lowland.Metric`; none for other columns.

    Rows are named by the first column of strings and stand in the table's order, from the top.

    >>> import torch
    >>> record = Table({"method": ["SGD", "SWA"], "nll": torch.tensor([0.5, 0.25])})
    >>> [label.get_text() for label in table(record).get_yticklabels()]
    ['SGD', 'SWA']
    """
    columns = record.columns
    numeric = [name for name, values in columns.items() if isinstance(values, Tensor)]
    column = column or ("nll" if "nll" in numeric else next(iter(numeric), None))
    if column not in numeric:
        raise ConfigError(
            f"column: expected a numeric column, {', '.join(numeric) or 'but there is none'}, "
            f"got {column!r}."
        )
    metric = metric_of(column)
    best = best or (metric.best if metric is not None else None)
    if best not in ("min", "max", None):
        raise ConfigError(f"best: expected 'min' or 'max', got {best!r}.")
    values = numbers(columns[column])
    names = next((c for c in columns.values() if not isinstance(c, Tensor)), range(len(values)))
    finite = values[np.isfinite(values)]
    top = {"min": finite.min, "max": finite.max}[best]() if best and len(finite) else None
    with canvas(ax, size=(6.4, min(1.0 + 0.34 * len(values), 16))) as ax:
        for marked in (False, True):
            rows = np.flatnonzero((values == top) == marked)
            label = f"best {column}" if marked else column
            ink, diameter = (colour(1), 9) if marked else (colour(0), 7)
            ax.plot(values[rows], rows, "o", color=ink, markersize=diameter, label=label)
        for row, value in enumerate(values):
            is_finite = np.isfinite(value)
            ax.annotate(
                f"{value:.4g}",
                (value if is_finite else 0, row),
                xycoords=("data" if is_finite else "axes fraction", "data"),
                xytext=(9, 0),
                textcoords="offset points",
                va="center",
                color=INK if value == top else MUTED,
                fontsize=SMALL,
                fontweight="bold" if value == top else "normal",
            )
        log_where_wide(ax, "x", values, factor=100)
        ax.set_yticks(range(len(values)), [str(name) for name in names])
        ax.set(xlabel=column, ylim=(len(values) - 0.4, -0.6))
        ax.margins(x=0.08)
    return ax
