"""Scales: logarithmic in plain numbers, and confidence with its high end spread out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

NEAREST = 1 - 1e-4  # confidences above it are drawn there: -log(1 - confidence) has no end
TICKS = np.array([0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998])
LETTER = 0.0145  # of a label: the share of the axis that it takes


def log_ticks(ax: Axes, which: str, values: np.ndarray) -> None:
    """Makes "x" or "y" logarithmic, in plain numbers: 1, 2, 5, over three decades powers of ten;
    within a factor of five a few round ones, where matplotlib would write too many."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    ax.set(**{f"{which}scale": "log"})
    axis: Axis = getattr(ax, f"{which}axis")
    wide = values.max() > 1000 * values.min()
    logarithmic = LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0))
    narrow = values.max() < 5 * values.min()
    axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]) if narrow else logarithmic)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def log_where_wide(ax: Axes, which: str, values: np.ndarray, *, factor: float = 20) -> bool:
    """Makes "x" or "y" logarithmic where positive values span more than a factor; whether it did.

    Values that are not finite are left out.
    """
    finite = values[np.isfinite(values)]
    wide = len(finite) > 0 and bool(0 < factor * finite.min() < finite.max())
    if wide:
        log_ticks(ax, which, finite)
    return wide


def confidence_ticks(ax: Axes, confidences: np.ndarray) -> None:
    """Makes x -log(1 - confidence), as Maddox et al. 2019 do, with ticks at round confidences."""
    low = stretch(min(0.2, confidences.min(initial=1.0))) - 0.2
    high = stretch(max(0.93, confidences.max(initial=0.0))) + 0.2
    ticks: list[float] = []
    for tick in TICKS[(stretch(TICKS) > low) & (stretch(TICKS) < high)]:
        gap = LETTER * len(f"{tick:g}") * (high - low)
        if not ticks or stretch(tick) - stretch(ticks[-1]) > gap:
            ticks.append(tick)
    ax.set_xscale("function", functions=(stretch, unstretch))
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xlim(unstretch(low), unstretch(high))


def stretch(confidence: Any) -> Any:
    """-log(1 - confidence), finite for 1 and above.

    >>> float(stretch(0.5))
    0.6931
    """
    return -np.log(np.maximum(1 - np.asarray(confidence), 1e-5))


def unstretch(u: Any) -> Any:
    """The inverse of `stretch`."""
    return 1 - np.exp(-np.asarray(u))
