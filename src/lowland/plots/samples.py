"""What more samples bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from lowland.errors import ConfigError, DataError
from lowland.metrics import axis_of
from lowland.plots.labels import Label, end_labels
from lowland.plots.scales import log_ticks
from lowland.plots.style import by_label, canvas, colour, dashes, merge_equal, numbers
from lowland.records import Predictive

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: metric -> (field, value to label)
FIELDS: dict[str, tuple[str, Callable[[float], str]]] = {
    "nll": ("nll_by_samples", "{:.3f}".format),
    "error": ("error_by_samples", "{:.2f}%".format),
}


def samples(
    record: Predictive | Mapping[str, Predictive], *, ax: Axes | None = None, metric: str = "nll"
) -> Axes:
    """Draws a metric of the model average of the first s samples against s.

    `metric`: "nll", in nats an item, or "error", in percent; a dict of records gives a line a
    label, and equal ones one line. s is logarithmic where there are more than 10 samples.

    >>> import torch
    >>> record = Predictive("classification", 3, nll_by_samples=torch.tensor([0.5, 0.4, 0.375]))
    >>> axes = samples({"SWAG": record})
    >>> axes.texts[0].get_text()
    'SWAG 0.375'
    """
    if metric not in FIELDS:
        raise ConfigError(f"metric: expected one of {', '.join(FIELDS)}, got {metric!r}.")
    field, format_value = FIELDS[metric]
    curves = {name: _values(result, field) for name, result in by_label(record).items()}
    values = merge_equal(curves)
    longest = max(map(len, values.values()))
    with canvas(ax) as ax:
        labels = []
        for i, (name, curve) in enumerate(values.items()):
            curve = 100 * curve if metric == "error" else curve
            ax.plot(
                np.arange(1, len(curve) + 1),
                curve,
                dashes(i),
                color=colour(i),
                linewidth=2,
                marker="o",
                markersize=5,
                markevery=1 if longest <= 10 else [-1],
                label=name or "model average",
            )
            text = f"{name} {format_value(curve[-1])}".strip()
            labels.append(Label(len(curve), curve[-1], text, colour(i)))
        if longest > 10:
            log_ticks(ax, "x", np.array([1.0, longest]))
        else:
            ax.set_xticks(range(1, longest + 1))
        ax.margins(x=0.03)
        ax.set(xlabel="samples in the average", ylabel=axis_of(metric, percent=True))
        end_labels(ax, labels)
    return ax


def _values(record: Predictive, field: str) -> np.ndarray:
    values = getattr(record, field)
    if values is None or not len(values):
        examples = "a classifier's examples" if field == "error_by_samples" else "examples"
        raise DataError(f"the record has no {field}; predict on {examples} with targets.")
    return numbers(values)
