"""A barrier between two minima."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lowland.plots.style import INK, by_label, canvas, colour, dashes, numbers
from lowland.records import BarrierResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def barrier(record: BarrierResult | Mapping[str, BarrierResult], *, ax: Axes | None = None) -> Axes:
    """Draws the loss along the line, the straight interpolation of its ends, and the height.

    In nats an item, over the surface's own examples, a dot for each point; a dict of records has
    one line each. A single record has an arrow from the chord to the maximum.

    >>> import torch
    >>> loss = torch.tensor([1.0, 4.0, 2.0])
    >>> record = BarrierResult(torch.linspace(0, 1, 3), loss, loss, distance=1.0)
    >>> barrier(record).get_legend().get_texts()[0].get_text()
    'barrier 2.5'
    """
    records = by_label(record)
    with canvas(ax) as ax:
        for i, (name, result) in enumerate(records.items()):
            t, ink = numbers(result.coords), colour(i)
            loss = numbers(result.loss)
            loss = np.where(np.isfinite(loss), loss, np.nan)
            text = f"{name}, barrier {result.height:.3g}".removeprefix(", ")
            ax.plot(t, loss, f".{dashes(i)}", color=ink, linewidth=2, markersize=6, label=text)
            ax.plot(t[[0, -1]], loss[[0, -1]], ":o", color=ink, linewidth=1.2, markersize=5)
            if len(records) == 1 and np.isfinite(result.height) and result.height > 0:
                foot, top = _top(result)
                arrow = {"arrowstyle": "<->", "color": INK, "shrinkA": 0, "shrinkB": 0}
                ax.annotate("", (result.t, foot), (result.t, top), arrowprops=arrow)
        ax.legend()
        ax.margins(x=0.03)
        ax.set(xlabel="t, along the straight line", ylabel="loss (nats)")
    return ax


def _top(record: BarrierResult) -> tuple[float, float]:
    """The heights of the chord and of the loss where they are farthest apart."""
    loss = numbers(record.loss)
    top = float(loss[int(np.argmin(np.abs(numbers(record.coords) - record.t)))])
    return top - record.height, top
