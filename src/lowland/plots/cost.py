"""What methods reach against what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.errors import ConfigError
from lowland.metrics import axis_of
from lowland.plots.labels import Label, end_labels
from lowland.plots.overlays import settle
from lowland.plots.panels import align_labels, panels, tick_size
from lowland.plots.scales import log_where_wide
from lowland.plots.style import MUTED, PALETTE, canvas, colour, numbers
from lowland.records import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COSTS = {"epochs": "training (epochs)", "samples": "prediction (forward passes per example)"}
METRICS = ("nll", "rmse", "accuracy")  # from below
_MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼"}  # for each round of the palette
_BESIDE = 6  # points between markers of equal cost
_GAP = 0.06  # between panels, as a share of the whole


def cost(record: Table, *, ax: Axes | None = None, cost: str = "epochs") -> Axes:
    """Draws the metrics of methods against a cost: a panel a metric, a point a row.

    Metrics are accuracy, in percent, RMSE and NLL, as far as the table has them. Bars are the
    standard errors of columns `NAME_se`. Methods of equal cost stand beside one another. The cost
    is logarithmic where it spans more than a factor of 10. A row whose values are not finite has no
    point.

    Args:
        cost: "epochs" of training, or "samples", the networks that predict.

    Returns the lowest panel.

    >>> import torch
    >>> columns = {"epochs": torch.tensor([6.0, 6.9]), "nll": torch.tensor([0.5, 0.25])}
    >>> axes = cost(Table({"method": ["SGD", "SWA"], **columns}))
    >>> axes.get_xlabel(), [text.get_text() for text in axes.texts]
    ('training (epochs)', ['● SGD', '● SWA'])
    """
    from matplotlib.ticker import MaxNLocator

    metrics = [name for name in METRICS if name in record.columns]
    costs = [name for name in COSTS if name in record.columns]
    if cost not in costs:
        raise ConfigError(
            f"cost: expected a column of costs, {', '.join(costs) or 'but there is none'}, got "
            f"{cost!r}."
        )
    if not metrics:
        raise ConfigError(f"expected a table with a column of {', '.join(METRICS)}; there is none.")
    x = numbers(record.columns[cost])
    largest = max(np.unique(x, return_counts=True)[1], default=0)  # group of equal costs
    height = (1 + _GAP) / len(metrics) - _GAP
    boxes = [(0, i * (height + _GAP), 1, height) for i in range(len(metrics))]
    size = (6.4, 0.7 + len(metrics) * max(2.2, 0.5 + 0.18 * len(record)))
    with canvas(ax, size=size, room=(0, 0)) as ax:
        column = panels(ax, boxes, sharex=ax)
        points = [
            _points(panel, record, cost, metric)
            for panel, metric in zip(column, metrics, strict=True)
        ]
        for panel in column:
            bottom = panel is ax
            panel.tick_params(labelbottom=bottom, color=MUTED, labelsize=tick_size(ax))
            panel.margins(x=0.04 + 0.012 * largest, y=0.08)
        if not log_where_wide(ax, "x", x, factor=10):
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel(COSTS[cost] + ("; equal costs side by side" if largest > 1 else ""))
        longest = max(record.method, key=len, default="")
        room = ax.annotate(f"■ {longest}", (1, 0), (4, 0), "axes fraction", "offset points")
        settle(ax)  # with room for the labels, whose heights depend on it
        room.remove()
        align_labels(column)
        for panel, each in zip(column, points, strict=True):
            end_labels(panel, [_at_marker(panel, label, beside) for label, beside in each])
    return ax


def _at_marker(ax: Axes, label: Label, beside: float) -> Label:
    """A label that begins at a marker, which stands so many points beside its place."""
    x, y = ax.transData.transform((label.x, label.y))
    x, _ = ax.transData.inverted().transform((x + beside * ax.figure.dpi / 72, y))
    return label._replace(x=float(x))


def _points(ax: Axes, record: Table, cost: str, metric: str) -> list[tuple[Label, float]]:
    """Draws the points of a panel; gives their labels, and how far markers stand beside them."""
    from matplotlib.transforms import offset_copy

    factor = 100 if metric == "accuracy" else 1
    x, x_error = _column(record, cost)
    y, y_error = _column(record, metric)
    figure: Any = ax.figure
    labels = []
    for i, name in enumerate(record.method):
        if np.isfinite(x[i]) and np.isfinite(y[i]):
            marker, sign = list(_MARKERS.items())[i // len(PALETTE) % len(_MARKERS)]
            style: dict[str, Any] = {"markersize": 5, "capsize": 3, "elinewidth": 1.4}
            style |= {"xerr": x_error[i], "yerr": factor * y_error[i], "color": colour(i)}
            at = x[i], factor * y[i]
            bars = ax.errorbar(at[0], at[1], fmt=marker, label=name, **style)
            equal = np.flatnonzero((x == x[i]) & np.isfinite(y)).tolist()
            beside = _BESIDE * (equal.index(i) - (len(equal) - 1) / 2)
            for artist in bars.get_children():  # now that limits are those of the numbers
                artist.set_transform(offset_copy(ax.transData, figure, beside, units="points"))
            labels.append((Label(*at, f"{sign} {name}", colour(i)), beside))
    ax.set_ylabel(axis_of(metric, percent=True))
    return labels


def _column(record: Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A column and its standard errors; 0 where there are none."""
    values = numbers(record.columns[name])
    errors = record.columns.get(f"{name}_se")
    return values, np.zeros_like(values) if errors is None else np.nan_to_num(numbers(errors))
