"""Loss or error along rays from minima."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lowland.errors import ConfigError
from lowland.metrics import axis_of
from lowland.plots.scales import log_where_wide
from lowland.plots.style import MUTED, by_label, canvas, colour, numbers
from lowland.records import WidthsResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_AXES = {"plain": "distance from w", "given": "t, in units of the direction"}


def widths(
    record: WidthsResult | Mapping[str, WidthsResult],
    *,
    ax: Axes | None = None,
    metric: str = "loss",
) -> Axes:
    """Draws one metric along each ray, and its mean as a thick line (Izmailov et al. 2018, figure
    4); a dict of records has a colour each.

    In a picture of one record, given directions such as eigenvectors have a colour each and no
    mean. Dots in a picture of the loss are the widths, where it has risen by the record's `rise`.
    y is logarithmic where values span more than a factor of 20; values that are not finite leave a
    gap.

    Args:
        metric: "loss", "error", "test_error" or another of the records.

    >>> import torch
    >>> t = torch.linspace(0, 1, 5)
    >>> one = torch.ones(1)
    >>> record = WidthsResult("plain", t, {"loss": t[None] ** 2}, one, 0.01, 1.0, one, 0.0, 0.0)
    >>> axes = widths({"SGD": record, "SWA": record})
    >>> axes.get_xlabel(), [text.get_text() for text in axes.get_legend().get_texts()]
    ('distance from w', ['SGD', 'SWA'])
    """
    records = by_label(record)
    kinds = {result.directions for result in records.values()}
    if len(kinds) > 1:
        raise ConfigError(
            f"the records have rays of different kinds, {', '.join(sorted(kinds))}; draw each kind "
            "by itself."
        )
    (kind,) = kinds
    with canvas(ax, size=(6.4, 4.0)) as ax:
        finite = []
        for i, (name, result) in enumerate(records.items()):
            t, rays = numbers(result.t), _values(result, metric)
            finite.append(rays.ravel())
            width, level = numbers(result.width), result.loss + result.rise
            if kind == "given" and not name:  # each is a direction of its own: no mean
                colours = [colour(j) for j in range(len(rays))]
                for j, ray in enumerate(rays):
                    ax.plot(t, ray, color=colours[j], linewidth=1.8, label=f"direction {j + 1}")
            else:
                colours = [colour(i)] * len(rays)
                ax.plot(t, rays.T, color=colour(i), linewidth=0.8, alpha=0.35, label="_rays")
                ax.plot(t, rays.mean(0), color=colour(i), linewidth=2.2, label=name or "_mean")
            if metric == "loss":
                ax.axhline(level, color=MUTED, linestyle=":", linewidth=1.0, label="_rise")
                for ink, place in zip(colours, width, strict=True):
                    if np.isfinite(place):
                        ax.plot(place, level, "o", color=ink, markersize=4, zorder=3)
        log_where_wide(ax, "y", np.concatenate(finite))
        if any(records) or kind == "given":
            ax.legend()
        ax.margins(x=0.02)
        name = metric.removeprefix("test_")
        split = "test " if metric != name else ""
        ax.set(
            xlabel=_AXES.get(kind, f"t, {kind} rays"),
            ylabel=f"{split}{axis_of(name)}",
        )
    return ax


def _values(record: WidthsResult, metric: str) -> np.ndarray:  # (n, m), NaN where not finite
    if metric not in record.metrics:
        raise ConfigError(f"metric: expected one of {', '.join(record.metrics)}, got {metric!r}.")
    values = numbers(record.metrics[metric])
    return np.where(np.isfinite(values), values, np.nan)
