"""Sharpness of minima, with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lowland.errors import ConfigError
from lowland.plots.scales import log_where_wide
from lowland.plots.style import PALE, by_label, canvas, colour, numbers
from lowland.records import SharpnessResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def sharpness(
    record: SharpnessResult | Mapping[str, SharpnessResult], *, ax: Axes | None = None
) -> Axes:
    """Draws the sharpness at each radius with its interval; a dict of records has rows for each.

    Pale dots are restarts or directions. The scale is logarithmic where values span more than a
    factor of 20, else it begins at 0. A sharpness that is not finite has no point.

    >>> import torch
    >>> value, interval = torch.tensor([0.5]), torch.tensor([[0.25, 0.5]])
    >>> record = SharpnessResult("sam", torch.tensor([0.05]), value, interval, interval, 0.1, 0.0)
    >>> axes = sharpness({"SGD": record, "SWA": record})
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['SGD', 'SWA']
    """
    records = by_label(record)
    kinds = sorted({result.kind for result in records.values()})
    if len(kinds) > 1:
        raise ConfigError(
            f"the records are of different measures, {', '.join(kinds)}, which have no scale in "
            "common; draw each measure by itself."
        )
    radii = {float(radius) for result in records.values() for radius in result.radius}
    rows = [
        (_label(name, float(result.radius[i]), len(radii) > 1), result, i)
        for name, result in records.items()
        for i in range(len(result.radius))
    ]
    with canvas(ax, size=(5.6, 1.2 + 0.34 * len(rows))) as ax:
        shades = {result: colour(i) for i, result in enumerate(records.values())}
        values_of_rows: list[np.ndarray] = []
        for y, (_, result, i) in enumerate(rows):
            values, value = numbers(result.values[i]), float(result.value[i])
            low, high = numbers(result.interval[i])
            finite = values[np.isfinite(values)]
            ax.plot(finite, np.full(len(finite), y), ".", color=PALE, markersize=4, zorder=1)
            values_of_rows += [finite]
            if np.isfinite([low, value, high]).all():
                error = [[value - low], [high - value]]
                ax.errorbar(value, y, xerr=error, fmt="o", capsize=3, color=shades[result])
                values_of_rows += [np.array([low, value, high])]
            elif np.isfinite(value):
                ax.plot(value, y, "o", color=shades[result])
                values_of_rows += [np.array([value])]
        values = np.concatenate(values_of_rows)
        if not log_where_wide(ax, "x", values) and values.min(initial=0) >= 0:
            ax.set_xlim(left=0)  # lengths compare as the values do
        ax.set_yticks(range(len(rows)), [label for label, *_ in rows])
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel(f"{kinds[0]} sharpness ({'%' if kinds[0] == 'keskar' else 'nats'})")
    return ax


def _label(name: str, radius: float, several: bool) -> str:
    if name and not several:
        return name
    return f"{name}, radius {radius:g}".removeprefix(", ")
