"""Learning rate, a metric and the distance from the start over cycles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.errors import ConfigError
from lowland.metrics import axis_of
from lowland.plots.overlays import settle
from lowland.plots.panels import align_labels, panels, tick_size
from lowland.plots.scales import log_where_wide
from lowland.plots.style import MUTED, PALE, SMALL, canvas, colour, numbers
from lowland.records import CycleSeries

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BOXES = [(0, 0, 1, 0.29), (0, 0.355, 1, 0.29), (0, 0.71, 1, 0.29)]


def cycles(record: CycleSeries, *, ax: Axes | None = None, metric: str | None = None) -> Axes:
    """Draws three panels over the iterations, as Garipov et al. 2018 do: the learning rate, a
    metric, and the distance from the start. Dotted lines are the ends of cycles, dots are members.
    The metric is logarithmic where it spans more than a factor of 20.

    Args:
        metric: "error", in percent, "rmse" or "nll"; None: the first that the record has.

    Returns the lowest panel.

    >>> import torch
    >>> step, ends = torch.arange(5), torch.tensor([4])
    >>> metrics = {"error": torch.tensor([0.2, 0.15, 0.1, 0.15, 0.2])}
    >>> lr, members = (step - 2).abs() / 10, torch.tensor([2])
    >>> record = CycleSeries(step, step.float(), metrics, step, lr, members, ends)
    >>> lowest = cycles(record)
    >>> [panel.get_ylabel() for panel in lowest.child_axes]
    ['error (%)', 'learning rate']
    """
    metric = metric or next(iter(record.metrics), None)
    if metric is None or metric not in record.metrics:
        there = ", ".join(record.metrics) or "but there is none"
        raise ConfigError(f"metric: expected one of the record's, {there}, got {metric!r}.")
    factor = 100 if metric == "error" else 1
    step, members = numbers(record.step), numbers(record.members)
    name = f"{record.split} {axis_of(metric, percent=True)}".strip()
    series = [
        ("distance from start", step, numbers(record.distance)),
        (name, step, factor * numbers(record.metrics[metric])),
        ("learning rate", numbers(record.lr_step), numbers(record.lr)),
    ]
    with canvas(ax, size=(6.4, 6.0), room=(0, 0)) as ax:
        column = panels(ax, _BOXES, sharex=ax)
        for i, (panel, (label, x, values)) in enumerate(zip(column, series, strict=True)):
            y = np.where(np.isfinite(values), values, np.nan)
            panel.tick_params(labelbottom=i == 0, color=MUTED, labelsize=tick_size(ax))
            for number, end in enumerate(numbers(record.ends)):
                mark: dict[str, Any] = {"color": PALE, "linestyle": ":", "linewidth": 1.0}
                panel.axvline(end, **mark, zorder=1, label="_end" if number else "cycle ends")
            panel.plot(x, y, color=colour(0), linewidth=1.6, label=f"_{label}")
            if len(x) and len(members):
                inside = members[(members >= x[0]) & (members <= x[-1])]
                style: dict[str, Any] = {"color": colour(1), "markersize": 5, "zorder": 3}
                panel.plot(inside, np.interp(inside, x, y), "o", label="members", **style)
            panel.set_ylabel(label)
            if i == 1:
                log_where_wide(panel, "y", y)
        ax.set_xlabel("iteration")
        ax.margins(x=0.02)
        if len(members) and len(step):
            place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 2}
            column[-1].legend(**place, borderaxespad=0.2, fontsize=SMALL, frameon=False)
        settle(ax)
        align_labels(column)
    return ax
