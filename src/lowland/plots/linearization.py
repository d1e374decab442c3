"""An ensemble and its weight average: how their predictions and the members' outputs differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lowland.errors import ConfigError
from lowland.plots.overlays import letters_across, words_below
from lowland.plots.scales import log_ticks
from lowland.plots.style import canvas, colour, numbers
from lowland.records import LinearizationResult
from lowland.records.linearization import TERMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BY = ("scale", "member")
LABELS = {
    "difference": "difference of outputs",
    "first_order": "first-order term",
    "second_order": "second-order term",
    "remainder": "remainder",
    "ensemble": "ensemble and average",
    "consecutive": "two consecutive members",
}


def linearization(
    record: LinearizationResult, *, ax: Axes | None = None, by: str | None = None
) -> Axes:
    """Draws the differences of predictions against the members' distance from their average, or the
    terms of each member's outputs.

    Both axes of the first picture are logarithmic, and its legend has the slopes. Values of zero
    have no point.

    Args:
        by: "scale", or "member". None: "scale" where there are several.

    >>> import torch
    >>> scales = torch.tensor([1.0, 0.5])
    >>> terms = {name: torch.ones(2, 1) for name in TERMS}
    >>> mean_terms = {name: torch.ones(1) for name in TERMS}
    >>> differences = scales[:, None] ** 2, scales[:, None]
    >>> record = LinearizationResult(torch.ones(2), terms, mean_terms, scales, *differences)
    >>> [text.get_text() for text in linearization(record).get_legend().get_texts()]
    ['ensemble and average, slope 2.00', 'two consecutive members, slope 1.00']
    """
    by = by or BY[len(record.scales) == 1]
    if by not in BY:
        raise ConfigError(f"by: expected one of {', '.join(BY)}, got {by!r}.")
    with canvas(ax, room=(0.15, 0)) as ax:
        if by == "scale":
            _by_scale(ax, record)
        else:
            _by_member(ax, record)
        words_below(ax, record.message, width=letters_across(ax))
    return ax


def _by_scale(ax: Axes, record: LinearizationResult) -> None:
    table, slopes = record.scale_table, record.slopes
    lines = {name: numbers(table.columns[name]) for name in slopes}
    x = numbers(table.distance)
    for i, (name, y) in enumerate(lines.items()):
        slope = f", slope {slopes[name]:.2f}" if np.isfinite(slopes[name]) else ""
        _line(ax, x, y, f"{LABELS[name]}{slope}", i)
    if len(x) > 1 and x.min() > 0:
        log_ticks(ax, "x", x)
    _log_y(ax, np.concatenate(list(lines.values())))
    ax.set(xlabel="mean distance of members from their average")
    ax.set_ylabel("difference of predictions (norm)")


def _by_member(ax: Axes, record: LinearizationResult) -> None:
    n = len(record.distance)
    lines = {name: numbers(record.terms[name]).mean(1) for name in TERMS}
    for i, (name, y) in enumerate(lines.items()):
        _line(ax, np.arange(n), y, LABELS[name], i)
    _log_y(ax, np.concatenate(list(lines.values())))
    names = record.names or [str(i) for i in range(n)]
    ticks = range(0, n, -(-n // 12))
    ax.set_xticks(ticks, [names[i] for i in ticks])
    ax.set(xlabel="member", ylabel="outputs less the average's (norm)")


def _line(ax: Axes, x: np.ndarray, y: np.ndarray, label: str, i: int) -> None:
    y = np.where(y > 0, y, np.nan)
    ax.plot(x, y, marker="o", markersize=4.5, linewidth=2, color=colour(i), label=label)


def _log_y(ax: Axes, values: np.ndarray) -> None:
    positive = values[np.isfinite(values) & (values > 0)]
    if len(positive):
        log_ticks(ax, "y", positive)
