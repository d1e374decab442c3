"""Loss and accuracy on the line through two networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.errors import ConfigError
from lowland.plots.overlays import settle
from lowland.plots.panels import tick_size
from lowland.plots.scales import log_where_wide
from lowland.plots.style import MUTED, PALE, canvas, colour, numbers
from lowland.records import PathResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def interpolation(
    record: PathResult, *, ax: Axes | None = None, ends: tuple[str, str] = ("", "")
) -> Axes:
    """Draws loss (left axis) and accuracy (right axis) along a line, as Keskar et al. 2017 do in
    figure 3 and Izmailov et al. 2018 in figure 5.

    `ll.path(ll.Line(w0, w1), surface, t=torch.linspace(-1, 2, 61), loader=test)` is such a record.
    Solid lines: the surface's own examples; dashed lines: the loader's. Dotted lines are the two
    networks. The loss is logarithmic where it spans more than a factor of 20.

    Args:
        ends: names of the networks at t = 0 and t = 1.

    Returns the axes of the loss, whose child is that of the accuracy.

    Raises:
        ConfigError: a record without error, as of a regression.

    >>> import torch
    >>> t = torch.linspace(-1, 2, 4)
    >>> record = PathResult(t, t**2, t.abs() / 4, t, t, t, outside=True)
    >>> axes = interpolation(record)
    >>> axes.get_ylabel(), axes.child_axes[0].get_ylabel()
    ('loss (nats)', 'accuracy (%)')
    """
    if not bool(record.error.isfinite().any()):
        raise ConfigError(
            "interpolation: the record has no error, as of a regression; draw it by record.plot()."
        )
    t = numbers(record.t)
    losses = [record.loss] + ([] if record.test_loss is None else [record.test_loss])
    errors = [record.error] + ([] if record.test_error is None else [record.test_error])
    with canvas(ax, size=(6.4, 4.0), room=(0, 0)) as ax:
        right = ax.inset_axes((0, 0, 1, 1), sharex=ax)
        right.patch.set_visible(False)
        right.yaxis.set_ticks_position("right")
        right.yaxis.set_label_position("right")
        right.spines["left"].set_visible(False)
        right.spines["right"].set_visible(True)
        right.tick_params(labelbottom=False, bottom=False)
        for end in (0, 1):
            ax.axvline(end, color=PALE, linestyle=":", linewidth=1.0, label="_end")
        values = [_finite(numbers(loss)) for loss in losses]
        accuracies = [_finite(100 * (1 - numbers(error))) for error in errors]
        for each, series, i in ((ax, values, 0), (right, accuracies, 1)):
            for y, style in zip(series, ("-", "--"), strict=False):
                each.plot(t, y, style, color=colour(i), linewidth=1.8, label="_series")
            each.yaxis.label.set_color(colour(i))
            each.tick_params(axis="y", labelcolor=colour(i), color=MUTED, labelsize=tick_size(ax))
        log_where_wide(ax, "y", np.concatenate(values))
        if len(values) > 1:
            for style, label in (("-", "train"), ("--", "test")):
                ax.plot([], [], style, color=MUTED, label=label)
            place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 2}
            ax.legend(**place, borderaxespad=0.2)
        ax.margins(x=0.02)
        ax.set(xlabel=_alpha(ends), ylabel="loss (nats)")
        right.set_ylabel("accuracy (%)")
        settle(ax)
    return ax


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def _alpha(ends: tuple[str, str]) -> str:
    if not any(ends):
        return r"$\alpha$"
    return rf"$\alpha$, from {ends[0] or 'the first'} at 0 to {ends[1] or 'the second'} at 1"
