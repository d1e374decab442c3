"""Loss or error along curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lowland.errors import ConfigError
from lowland.metrics import axis_of
from lowland.plots.scales import log_ticks
from lowland.plots.style import INK, MUTED, canvas, colour, named, numbers
from lowland.records import PathResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor


def path(
    record: PathResult | Mapping[str, PathResult], *, ax: Axes | None = None, metric: str = "loss"
) -> Axes:
    """Draws one metric against t; a dict of records gives a line a label.

    Solid lines are of the surface's own rows, dashed ones of the loader's; dots mark the ends,
    t = 0 and t = 1. `metric`: "loss", "error", or another figure that the records hold. y is
    logarithmic where values span more than a factor of 20; what is not finite leaves a gap.

    >>> import torch
    >>> record = PathResult(*[torch.linspace(0, 1, 3)] * 6)
    >>> axes = path({"line": record, "Bezier": record})
    >>> [text.get_text() for text in axes.get_legend().get_texts()]
    ['line', 'Bezier']
    """
    lines = {name: (numbers(one.t), *_values(one, metric)) for name, one in named(record).items()}
    shown = np.concatenate([y for _, *both in lines.values() for y in both if y is not None])
    shown = shown[np.isfinite(shown)]
    tests = any(test is not None for _, _, test in lines.values())
    with canvas(ax, size=(7.2, 4.0)) as ax:
        for i, (name, (t, own, test)) in enumerate(lines.items()):
            ink = colour(i)
            for values, style, width in ((own, "-", 2.0), (test, "--", 1.6)):
                if values is None:
                    continue
                y = np.where(np.isfinite(values), values, np.nan)
                label = name if values is own else "_test"
                ax.plot(t, y, style, color=ink, linewidth=width, label=label or "_own")
                ends = np.isclose(t, 0) | np.isclose(t, 1)
                ax.plot(t[ends], y[ends], "o", color=INK, markersize=5, label="_ends", zorder=3)
        if len(shown) and 0 < 20 * shown.min() < shown.max():
            log_ticks(ax, "y", shown)
        if tests:
            ax.plot([], [], "-", color=MUTED, label="train")
            ax.plot([], [], "--", color=MUTED, label="test")
        if tests or any(lines):
            # beside the axes: inside, some curve runs through it
            ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        ax.margins(x=0.03)
        ax.set(xlabel="t", ylabel=axis_of(metric))
    return ax


def _values(record: PathResult, metric: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Of the own rows, and of the loader's where there are some."""
    held: dict[str, Tensor | None] = {"loss": record.loss, "error": record.error, **record.metrics}
    held |= {"test_loss": record.test_loss, "test_error": record.test_error}
    own = held.get(metric)
    # a regression has no error: its column is all NaN
    there = {k: v for k, v in held.items() if v is not None and not bool(v.isnan().all())}
    if own is None or (metric not in there and metric != "loss"):
        names = ", ".join(name for name in there if not name.startswith("test_"))
        raise ConfigError(f"metric: expected one of {names}, got {metric!r}.")
    test = there.get(f"test_{metric}")
    return numbers(own), None if test is None else numbers(test)
