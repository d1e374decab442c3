"""Labels at the ends of lines that do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lowland.plots.style import SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Label(NamedTuple):
    """A text for a line that ends at the point (x, y) in data coordinates."""

    x: float
    y: float
    text: str
    colour: str


def end_labels(ax: Axes, labels: Sequence[Label]) -> None:
    """Writes texts right of the axes at the heights of the lines' ends, apart enough to be read.

    Lines that end early are led on to their label by dots. Scales and limits must be set before.
    """
    from matplotlib.patches import ConnectionPatch

    ax.get_xlim(), ax.get_ylim()  # limits are computed when asked for
    ends = [ax.transData.transform((label.x, label.y)) for label in labels]
    heights = [72 / ax.figure.dpi * float(end[1]) for end in ends]  # in points
    moved = spread(heights, 1.3 * SMALL)
    for label, end, old, new in zip(labels, ends, heights, moved, strict=True):
        if ax.transAxes.inverted().transform(end)[0] < 0.9:
            edge = ax.get_yaxis_transform()
            ends_at = (label.x, label.y), (1, label.y)
            ax.add_artist(
                ConnectionPatch(*ends_at, ax.transData, edge, linestyle=":", color=label.colour)
            )
        ax.annotate(
            label.text,
            (1, label.y),
            xycoords=("axes fraction", "data"),
            xytext=(4, new - old),
            textcoords="offset points",
            color=label.colour,
            fontsize=SMALL,
            va="center",
            annotation_clip=False,
        )


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """The nearest positions (least squares) in the same order that are `gap` apart or more.

    >>> spread([0.0, 1.0, 9.0], gap=2.0)
    [-0.5, 1.5, 9.0]
    """
    order = np.argsort(positions, kind="stable")
    blocks: list[tuple[float, int]] = []  # neighbours that touch: sum of (position - rank x gap), n
    for rank, i in enumerate(order):
        total, n = positions[i] - rank * gap, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / n:
            above, m = blocks.pop()
            total, n = total + above, n + m
        blocks.append((total, n))
    out = np.empty(len(order))
    out[order] = gap * np.arange(len(order)) + np.concatenate(
        [np.full(n, total / n) for total, n in blocks] or [np.empty(0)]
    )
    return out.tolist()
