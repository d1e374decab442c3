"""Loss or error along curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lowland.errors import ConfigError
from lowland.metrics import axis_of
from lowland.plots.scales import log_where_wide
from lowland.plots.style import INK, MUTED, by_label, canvas, colour, numbers
from lowland.records import PathResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor


def path(
    record: PathResult | Mapping[str, PathResult], *, ax: Axes | None = None, metric: str = "loss"
) -> Axes:
    """Draws one metric against t; a dict of records has one line each.

    Solid lines: the surface's own examples; dashed lines: the loader's; dots: the ends, t = 0 and
    t = 1. `metric`: "loss", "error", or another of the records. y is logarithmic where values span
    more than a factor of 20; values that are not finite leave a gap.

    >>> import torch
    >>> record = PathResult(*[torch.linspace(0, 1, 3)] * 6)
    >>> axes = path({"line": record, "Bezier": record})
    >>> [text.get_text() for text in axes.get_legend().get_texts()]
    ['line', 'Bezier']
    """
    lines = {
        name: (numbers(result.t), *_values(result, metric))
        for name, result in by_label(record).items()
    }
    values_of_lines = np.concatenate(
        [y for _, *both in lines.values() for y in both if y is not None]
    )
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
        log_where_wide(ax, "y", values_of_lines)
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
    """The values on the surface's own examples, and on the loader's where there is one."""
    metrics: dict[str, Tensor | None] = {
        "loss": record.loss,
        "error": record.error,
        **record.metrics,
    }
    metrics |= {"test_loss": record.test_loss, "test_error": record.test_error}
    own = metrics.get(metric)
    # a regression has no error: its column is all NaN
    available = {k: v for k, v in metrics.items() if v is not None and not bool(v.isnan().all())}
    if own is None or (metric not in available and metric != "loss"):
        names = ", ".join(name for name in available if not name.startswith("test_"))
        raise ConfigError(f"metric: expected one of {names}, got {metric!r}.")
    test = available.get(f"test_{metric}")
    return numbers(own), None if test is None else numbers(test)
