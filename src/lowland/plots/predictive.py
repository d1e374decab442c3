"""A model average against its targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lowland.errors import DataError
from lowland.plots.reliability import reliability
from lowland.plots.style import MUTED, SMALL, canvas, colour, numbers
from lowland.records import Predictive

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def predictive(
    record: Predictive, *, ax: Axes | None = None, dimension: int = 0, examples: int = 300
) -> Axes:
    """Draws a classifier's reliability diagram, or a regression's predictions against targets.

    Regression, in the target's units: the predictive mean ± 2 standard deviations (total) of one
    target `dimension` of every item, with the diagonal of perfect prediction. Of more than
    `examples` items, that many are drawn, evenly spaced through the record. Items whose bar misses
    the target, which a Gaussian of the right width does for 5%, have their own colour.

    >>> import torch
    >>> mean, target = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5], [9.0]])
    >>> record = Predictive("regression", 8, mean=mean, variance=torch.ones(2, 1), targets=target)
    >>> [text.get_text() for text in predictive(record).get_legend().get_texts()]
    ['within ± 2 sd (50%)', 'beyond (50%)']
    """
    if record.reliability is not None:
        return reliability(record, ax=ax)
    if record.mean is None or record.variance is None or record.targets is None:
        raise DataError(
            "the record holds neither reliability nor mean, variance and targets; "
            "predict with keep='probs' on examples that have targets."
        )
    if not len(record.mean):
        raise DataError("the record holds no examples; predict on a loader that has some.")
    mean, variance, target = (
        numbers(tensor if tensor.ndim < 2 else record.by_item(tensor)[:, dimension])
        for tensor in (record.mean, record.variance, record.targets)
    )
    deviation = 2 * np.sqrt(variance)
    within = np.abs(target - mean) <= deviation
    selected = np.unique(np.linspace(0, len(mean) - 1, min(examples, len(mean))).astype(int))
    with canvas(ax, size=(5.4, 4.6)) as ax:
        for i, (name, mask) in enumerate({"within ± 2 sd": within, "beyond": ~within}.items()):
            subset = selected[mask[selected]]
            ax.errorbar(
                target[subset],
                mean[subset],
                deviation[subset],
                fmt="o",
                color=colour(i),
                ecolor=(colour(i), 0.35),
                markersize=3.5,
                elinewidth=1.2,
                label=f"{name} ({mask.mean():.0%})",
                zorder=2 + i,
            )
        point = float(target.mean())
        ax.axline((point, point), slope=1, color=MUTED, linewidth=1, linestyle="--", zorder=1)
        ax.set(xlabel="target", ylabel="predicted mean ± 2 sd")
        ax.legend(loc="upper left")
        if len(selected) < len(mean):
            ax.text(
                0.99,
                0.01,
                f"{len(selected)} of {len(mean)} examples",
                transform=ax.transAxes,
                ha="right",
                va="bottom",
                color=MUTED,
                fontsize=SMALL,
            )
    return ax
