"""What more samples bring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lowland.errors import DataError
from lowland.plots.labels import Label, end_labels
from lowland.plots.scales import log_ticks
from lowland.plots.style import canvas, colour, dashes, named, numbers
from lowland.records import Predictive

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def samples(record: Predictive | Mapping[str, Predictive], *, ax: Axes | None = None) -> Axes:
    """Draws the NLL of the model average of the first s samples against s, final values labelled.

    In nats an item; a dict of records gives a line a label. s is logarithmic where there are more
    than 10 samples.

    >>> import torch
    >>> record = Predictive("classification", 3, nll_by_samples=torch.tensor([0.5, 0.4, 0.375]))
    >>> axes = samples({"SWAG": record})
    >>> axes.texts[0].get_text()
    'SWAG 0.375'
    """
    values = {name: _values(one) for name, one in named(record).items()}
    longest = max(map(len, values.values()))
    with canvas(ax) as ax:
        labels = []
        for i, (name, nll) in enumerate(values.items()):
            ax.plot(
                np.arange(1, len(nll) + 1),
                nll,
                dashes(i),
                color=colour(i),
                linewidth=2,
                marker="o",
                markersize=5,
                markevery=1 if longest <= 10 else [-1],
                label=name or "model average",
            )
            labels.append(Label(len(nll), nll[-1], f"{name} {nll[-1]:.3f}".strip(), colour(i)))
        if longest > 10:
            log_ticks(ax, "x", np.array([1.0, longest]))
        else:
            ax.set_xticks(range(1, longest + 1))
        ax.margins(x=0.03)
        ax.set(xlabel="samples in the average", ylabel="negative log-likelihood (nats)")
        end_labels(ax, labels)
    return ax


def _values(record: Predictive) -> np.ndarray:
    if record.nll_by_samples is None or not len(record.nll_by_samples):
        raise DataError("the record holds no nll_by_samples; predict on rows that have targets.")
    return numbers(record.nll_by_samples)
