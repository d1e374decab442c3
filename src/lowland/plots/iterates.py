"""Iterates, their running average in weights, and their running ensemble."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.errors import ConfigError, DataError
from lowland.metrics import axis_of
from lowland.plots.labels import Label, end_labels
from lowland.plots.style import MUTED, canvas, colour, numbers
from lowland.records import IterateTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINES = {"": "iterate", "_average": "average of weights", "_ensemble": "ensemble"}


def iterates(record: IterateTable, *, ax: Axes | None = None, metric: str | None = None) -> Axes:
    """Draws a metric of each iterate as a dot, and lines for what the first i average to: in
    weights (SWA), and in predictions (the ensemble, as of FGE).

    Args:
        metric: "error", in percent, "rmse" or "nll"; None: the first that the record has.

    >>> import torch
    >>> columns = {"iterate": torch.tensor([1, 2, 3]), "error": torch.tensor([0.1, 0.11, 0.1])}
    >>> columns |= {"error_average": torch.tensor([0.1, 0.08, 0.07])}
    >>> axes = iterates(IterateTable(columns))
    >>> [text.get_text() for text in axes.texts]
    ['iterate 10.00', 'average of weights 7.00']
    """
    if not record.measures:
        raise DataError("the record has no metric; evaluate on examples with targets.")
    metric = metric or record.measures[0]
    if metric not in record.measures:
        expected = ", ".join(record.measures)
        raise ConfigError(f"metric: expected one of {expected}, got {metric!r}.")
    factor, form = (100.0, "{:.2f}") if metric == "error" else (1.0, "{:.4g}")
    x = numbers(record.iterate)
    labels = []
    with canvas(ax) as ax:
        for i, (ending, name) in enumerate(_LINES.items()):
            if metric + ending not in record.columns:
                continue
            y = factor * numbers(record.columns[metric + ending])
            y = np.where(np.isfinite(y), y, np.nan)
            style: dict[str, Any] = {"linewidth": 2, "markersize": 4, "color": colour(i - 1)}
            if not ending:
                style = {"linestyle": "", "markersize": 5, "color": MUTED}
            ax.plot(x, y, marker="o", label=name, **style)
            if len(y) and np.isfinite(y[-1]):
                text = f"{name} {form.format(y[-1])}"
                labels.append(Label(x[-1], y[-1], text, style["color"]))
        ax.set(xlabel="iterates averaged", ylabel=axis_of(metric, percent=True))
        ax.margins(x=0.03)
        ax.locator_params(axis="x", integer=True, min_n_ticks=1)
        end_labels(ax, labels)
    return ax
