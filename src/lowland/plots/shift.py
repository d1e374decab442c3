"""Metrics under corruption of the images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lowland.errors import ConfigError
from lowland.metrics import axis_of
from lowland.plots.labels import Label, end_labels
from lowland.plots.scales import log_where_wide
from lowland.plots.style import by_label, canvas, colour, dashes, numbers
from lowland.records import ShiftCurves

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def shift(
    record: ShiftCurves | Mapping[str, ShiftCurves],
    *,
    ax: Axes | None = None,
    metric: str = "nll",
    kind: str | None = None,
) -> Axes:
    """Draws one metric against the strength of corruption; a dict of records has one line each.

    `metric`: "nll", "accuracy", "ece" or another of the records. `kind`: the corruption; None: the
    mean over all kinds. Strength 0: clean examples. Labels have the value at the largest
    strength. The axis of the NLL is logarithmic where values differ more than tenfold.

    >>> import torch
    >>> curves = {"contrast": {"nll": torch.tensor([0.25, 0.5])}}
    >>> shift({"SWAG": ShiftCurves(torch.tensor([0, 1]), curves)}).texts[0].get_text()
    'SWAG 0.500'
    """
    lines = {
        name: (numbers(result.strength), _values(result, metric, kind))
        for name, result in by_label(record).items()
    }
    values = np.concatenate([y for _, y in lines.values()])
    with canvas(ax, size=(7.6, max(4.0, 2.0 + 0.25 * len(lines)))) as ax:
        labels = []
        for i, (name, (x, y)) in enumerate(lines.items()):
            ink = colour(i)
            ax.plot(x, y, dashes(i), color=ink, linewidth=2, marker="o", markersize=5, label=name)
            labels.append(Label(float(x[-1]), float(y[-1]), f"{name} {y[-1]:.3f}".strip(), ink))
        if metric == "nll":
            log_where_wide(ax, "y", values, factor=10)
        strengths = np.unique(np.concatenate([x for x, _ in lines.values()]))
        ax.set_xticks(strengths, ["clean" if s == 0 else f"{s:g}" for s in strengths])
        ax.margins(x=0.03)
        of = "mean over kinds" if kind is None else kind.replace("_", " ")
        ax.set(xlabel=f"strength of corruption ({of})", ylabel=axis_of(metric))
        end_labels(ax, labels)
    return ax


def _values(record: ShiftCurves, metric: str, kind: str | None) -> np.ndarray:
    if kind is not None and kind not in record.curves:
        raise ConfigError(f"kind: expected one of {', '.join(record.curves)}, got {kind!r}.")
    metrics = [set(curve) for curve in record.curves.values()]
    if not metrics or metric not in set.intersection(*metrics):
        names = ", ".join(sorted(set.union(*metrics))) if metrics else "none, for there is no curve"
        raise ConfigError(f"metric: expected one of {names}, got {metric!r}.")
    return numbers(record.mean(metric) if kind is None else record.curves[kind][metric])
