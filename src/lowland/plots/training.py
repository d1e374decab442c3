"""Training curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from lowland.errors import ConfigError
from lowland.metrics import axis_of, metric_of
from lowland.plots.labels import Label, end_labels
from lowland.plots.scales import log_where_wide
from lowland.plots.style import MUTED, PALE, SMALL, canvas, colour, dashes, numbers
from lowland.records import TrainingLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Curve(NamedTuple):
    name: str
    x: np.ndarray
    y: np.ndarray
    style: dict[str, Any]


def training(
    record: TrainingLog, *, ax: Axes | None = None, metric: str = "nll", title: str = ""
) -> Axes:
    """Draws the loss and a validation metric against epochs, and every average as a bold line.

    The thin pale line is the training loss (nats an item, in training mode: with dropout and
    augmentation), the grey one `metric` of the iterates, where the log holds it. With a metric that
    is not in nats the loss is left out. y is logarithmic where values span more than a factor of
    20; a dotted line marks the first epoch of the averages, where it is not the run's. `title` is
    written above.

    >>> import torch
    >>> epoch = torch.arange(1, 4)
    >>> average = {"epoch": epoch[1:], "nll": torch.tensor([0.6, 0.5])}
    >>> log = TrainingLog({"epoch": epoch, "loss": torch.tensor([2.0, 1.0, 0.7])}, {"SWA": average})
    >>> [line.get_label() for line in training(log).lines]
    ['training loss', 'SWA', 'averaging starts']
    """
    curves = [curve for curve in _curves(record, metric) if len(curve.y)]
    values = np.concatenate([curve.y for curve in curves] or [np.empty(0)])
    starts = [float(c["epoch"][0]) for c in record.averages.values() if len(c["epoch"])]
    with canvas(ax) as ax:
        for curve in curves:
            ax.plot(curve.x, curve.y, label=curve.name, marker="o", markevery=[-1], **curve.style)
        ax.set_xlabel("epoch")
        split = "training" if metric == "loss" else "validation"
        ax.set_ylabel(f"{split} {axis_of(metric)}")
        if title:
            ax.set_title(title, loc="left", fontsize=SMALL, color=MUTED)
        ax.margins(x=0.02)
        ax.locator_params(axis="x", integer=True, min_n_ticks=1)
        log_where_wide(ax, "y", values)
        if starts and curves and min(starts) > curves[0].x[0]:
            _mark(ax, min(starts), top=curves[0].y[0] >= curves[0].y[-1])
        end_labels(ax, [Label(c.x[-1], c.y[-1], c.name, c.style["color"]) for c in curves])
    return ax


def _curves(record: TrainingLog, metric: str) -> list[Curve]:
    columns, curves = record.columns, []
    declared = metric_of(metric)
    if declared is not None and declared.unit == "nats":
        pale = {"color": PALE, "linewidth": 1.0, "markersize": 3}
        curves.append(_curve("training loss", columns["epoch"], columns["loss"], pale))
    if metric != "loss" and metric in columns:
        grey = {"color": MUTED, "linewidth": 1.4, "markersize": 4}
        curves.append(_curve("iterates", columns["epoch"], columns[metric], grey))
    for i, (name, column) in enumerate(record.averages.items()):
        if metric in column:
            bold = {"color": colour(i), "linestyle": dashes(i), "linewidth": 2.4, "markersize": 6}
            curves.append(_curve(name, column["epoch"], column[metric], bold))
    if not curves:
        names = ", ".join(columns)
        raise ConfigError(f"metric: expected a column of the log ({names}), got {metric!r}.")
    return curves


def _curve(name: str, epoch: Tensor, values: Tensor, style: dict[str, Any]) -> Curve:
    x, y = numbers(epoch), numbers(values)
    finite = np.isfinite(y)  # epochs without a validation are NaN
    return Curve(name, x[finite], y[finite], style)


def _mark(ax: Axes, epoch: float, *, top: bool) -> None:
    """A light vertical line where averaging starts, named where the curves leave room."""
    low, high = ax.get_xlim()
    late = epoch > low + 0.7 * (high - low)
    ax.axvline(epoch, color=PALE, linestyle=":", linewidth=1.2, zorder=1, label="averaging starts")
    ax.annotate(
        "averaging starts",
        (epoch, 1 if top else 0),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if late else 5, -2 if top else 2),
        textcoords="offset points",
        ha="right" if late else "left",
        va="top" if top else "bottom",
        color=MUTED,
        fontsize=SMALL,
    )
