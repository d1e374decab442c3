"""The growth of a simplex."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.errors import DataError
from lowland.plots.overlays import settle, words_below
from lowland.plots.panels import align_labels, panels, tick_size
from lowland.plots.scales import log_where_wide
from lowland.plots.style import MUTED, by_label, canvas, colour, numbers
from lowland.records import GrowthResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def growth(record: GrowthResult | Mapping[str, GrowthResult], *, ax: Axes | None = None) -> Axes:
    """Draws log volume above, and the mean and highest loss below, against the number of vertices.

    Solid lines: mean loss over points of the simplex; dotted lines: highest loss, in nats an item;
    dashed line: the bound. A rejected vertex is hollow, and the caption has the reason. A dict of
    records has one colour each. The loss is logarithmic where it spans more than a factor of 20.
    Returns the lower panel.

    >>> import torch
    >>> column = torch.tensor([0.5, 0.75])
    >>> record = GrowthResult(
    ...     torch.tensor([2, 3]), *[column] * 4, accepted=torch.tensor([True, False])
    ... )
    >>> axes = growth(record)
    >>> axes.get_xlabel(), axes.child_axes[0].get_ylabel()
    ('vertices', 'log volume')
    """
    records = by_label(record)
    for name, result in records.items():
        if not len(result.vertices):
            raise DataError(f"{name or 'the record'}: has no steps; grow by at least one vertex.")
    losses = np.concatenate([_losses(result) for result in records.values()])
    with canvas(ax, size=(6.4, 5.6), room=(0.2, 0)) as ax:
        below, above = panels(ax, [(0, 0, 1, 0.56), (0, 0.64, 1, 0.36)], sharex=ax)
        above.tick_params(labelbottom=False, color=MUTED, labelsize=tick_size(below))
        for i, (name, result) in enumerate(records.items()):
            ink = colour(i)
            _draw_curves(above, below, name, result, ink)
            if np.isfinite(result.bound):
                inked = ink if len({r.bound for r in records.values()}) > 1 else MUTED
                below.axhline(result.bound, color=inked, linestyle="--", linewidth=1.2, zorder=1)
        bounds = {result.bound for result in records.values() if np.isfinite(result.bound)}
        if bounds:
            label = f"bound {min(bounds):.3g}" if len(bounds) == 1 else "bounds"
            below.plot([], [], "--", color=MUTED, linewidth=1.2, label=label)
        if any(records):
            below.plot([], [], "-o", color=MUTED, label="mean")
            below.plot([], [], ":^", color=MUTED, label="highest")
        if not all(bool(result.accepted.all()) for result in records.values()):
            below.plot([], [], "o", color=MUTED, markerfacecolor="white", label="rejected")
        log_where_wide(below, "y", losses)
        below.locator_params(axis="x", integer=True, min_n_ticks=1)
        below.margins(x=0.05)
        units = list(dict.fromkeys(result.unit for result in records.values()))
        below.set(xlabel=" or ".join(units), ylabel="loss (nats)")
        above.set_ylabel("log volume")
        if any(records):
            above.legend(loc="best")
        if not above.dataLim.size[1] >= 0:  # one vertex has no volume
            above.set_yticks([])
        words_below(below, _caption(records), width=80)
        settle(ax)
        align_labels([below, above])
    return ax


def _draw_curves(above: Axes, below: Axes, name: str, result: GrowthResult, ink: str) -> None:
    """Log volume above, mean and highest loss below; markers of rejected vertices are hollow."""
    x, accepted = numbers(result.vertices), numbers(result.accepted) > 0
    curves = (
        (above, result.log_volume, "-", "o", name),
        (below, result.loss_mean, "-", "o", "_mean" if name else "mean"),
        (below, result.loss_max, ":", "^", "_highest" if name else "highest"),
    )
    for axes, values, dash, marker, label in curves:
        y = numbers(values)
        y = np.where(np.isfinite(y), y, np.nan)
        axes.plot(x, y, dash, color=ink, linewidth=2, label=label or "_volume")
        for mask, face in ((accepted, ink), (~accepted, "white")):
            style: dict[str, Any] = {"color": ink, "markersize": 6, "zorder": 3}
            axes.plot(x[mask], y[mask], marker, **style, markerfacecolor=face)


def _losses(record: GrowthResult) -> np.ndarray:
    return np.concatenate([numbers(record.loss_mean), numbers(record.loss_max), [record.bound]])


def _caption(records: Mapping[str, GrowthResult]) -> str:
    """Why growth stopped, and the number of points of each loss."""
    parts = []
    for name, result in records.items():
        if result.stop_reason:
            parts.append(f"{name or 'stopped'}: {result.stop_reason.rstrip('.')}")
    samples = sorted({result.samples for result in records.values() if result.samples})
    if len(samples) == 1:
        parts.append(f"losses of {samples[0]:,} random points a step")
    return "; ".join(parts)
