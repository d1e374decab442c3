"""How a simplex grew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.errors import DataError
from lowland.plots.overlays import make_room, settle, words_below
from lowland.plots.panels import align_labels, panels
from lowland.plots.scales import log_ticks
from lowland.plots.style import FAINT, MUTED, SMALL, canvas, colour, named, numbers
from lowland.records import GrowthResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def growth(record: GrowthResult | Mapping[str, GrowthResult], *, ax: Axes | None = None) -> Axes:
    """Draws log volume above, and the mean and highest loss below, against the number of vertices.

    Solid lines are means over points of the simplex, dotted ones the highest loss found, in nats an
    item; the bound on the loss is dashed. A vertex that was refused is hollow, and the words below
    say why growth stopped. A dict of records gives a colour a label. The loss is logarithmic where
    it spans more than a factor of 20. What is returned is the lower panel.

    >>> import torch
    >>> column = torch.tensor([0.5, 0.75])
    >>> record = GrowthResult(
    ...     torch.tensor([2, 3]), *[column] * 4, accepted=torch.tensor([True, False])
    ... )
    >>> axes = growth(record)
    >>> axes.get_xlabel(), axes.child_axes[0].get_ylabel()
    ('vertices', 'log volume')
    """
    records = named(record)
    for name, one in records.items():
        if not len(one.vertices):
            raise DataError(f"{name or 'the record'}: holds no steps; grow by at least one.")
    most = np.concatenate([_losses(one) for one in records.values()])
    shown: np.ndarray = most[np.isfinite(most)]
    if ax is not None:
        make_room(ax, below=0.2, beside=0)
    with canvas(ax, size=(6.4, 5.6)) as ax:
        below, above = panels(ax, [(0, 0, 1, 0.56), (0, 0.64, 1, 0.36)], sharex=ax)
        above.grid(True, color=FAINT, linewidth=0.8)
        above.set_axisbelow(True)
        above.tick_params(labelbottom=False, color=MUTED, labelsize=_size(below))
        for i, (name, one) in enumerate(records.items()):
            x, accepted = numbers(one.vertices), numbers(one.accepted) > 0
            ink = colour(i)
            drawn = (
                (above, one.log_volume, "-", "o", name),
                (below, one.loss_mean, "-", "o", "_mean" if name else "mean"),
                (below, one.loss_max, ":", "^", "_highest" if name else "highest"),
            )
            for axes, values, dash, marker, label in drawn:
                y = numbers(values)
                y = np.where(np.isfinite(y), y, np.nan)
                axes.plot(x, y, dash, color=ink, linewidth=2, label=label or "_volume")
                for there, face in ((accepted, ink), (~accepted, "white")):
                    style: dict[str, Any] = {"color": ink, "markersize": 6, "zorder": 3}
                    axes.plot(x[there], y[there], marker, **style, markerfacecolor=face)
            if np.isfinite(one.bound):
                inked = ink if len({r.bound for r in records.values()}) > 1 else MUTED
                below.axhline(one.bound, color=inked, linestyle="--", linewidth=1.2, zorder=1)
        bounds = {one.bound for one in records.values() if np.isfinite(one.bound)}
        if bounds:
            label = f"bound {min(bounds):.3g}" if len(bounds) == 1 else "bounds"
            below.plot([], [], "--", color=MUTED, linewidth=1.2, label=label)
        if any(records):
            below.plot([], [], "-o", color=MUTED, label="mean")
            below.plot([], [], ":^", color=MUTED, label="highest")
        if not all(bool(one.accepted.all()) for one in records.values()):
            below.plot([], [], "o", color=MUTED, markerfacecolor="white", label="refused")
        if len(shown) and 0 < 20 * shown.min() < shown.max():
            log_ticks(below, "y", shown)
        below.locator_params(axis="x", integer=True, min_n_ticks=1)
        below.margins(x=0.05)
        units = list(dict.fromkeys(one.unit for one in records.values()))
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


def _losses(record: GrowthResult) -> np.ndarray:
    return np.concatenate([numbers(record.loss_mean), numbers(record.loss_max), [record.bound]])


def _size(ax: Axes) -> float:
    """Of the ticks' labels: a child's are those of its parent."""
    labels = ax.get_xticklabels()
    return float(labels[0].get_fontsize()) if labels else SMALL


def _caption(records: Mapping[str, GrowthResult]) -> str:
    """How losses were found, and why growth stopped."""
    parts = []
    for name, one in records.items():
        if one.stop_reason:
            parts.append(f"{name or 'stopped'}: {one.stop_reason.rstrip('.')}")
    samples = sorted({one.samples for one in records.values() if one.samples})
    if len(samples) == 1:
        parts.append(f"losses of {samples[0]:,} random points a step")
    return "; ".join(parts)
