"""Labels of lines and points that do not overlap.

adjustText places them no better, five times as slowly (109 against 24 ms for six labels), and
imports pyplot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowland.plots.style import SMALL, halo

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Label(NamedTuple):
    """A text for a line that ends at the point (x, y) in data coordinates."""

    x: float
    y: float
    text: str
    colour: str


def end_labels(ax: Axes, labels: Sequence[Label]) -> None:
    """Writes texts right of the axes at the heights of the lines' ends, without overlaps.

    They stay beside the axes where these have room for all. A dotted line leads from the end of a
    short line to its label. Set scales and limits before.
    """
    from matplotlib.patches import ConnectionPatch

    ax.get_xlim(), ax.get_ylim()  # computes the limits
    ends = [ax.transData.transform((label.x, label.y)) for label in labels]
    heights = [72 / ax.figure.dpi * float(end[1]) for end in ends]  # in points
    limits = 72 / ax.figure.dpi * ax.bbox.y0, 72 / ax.figure.dpi * ax.bbox.y1
    label_heights = spread(heights, 1.3 * SMALL, within=limits)
    for label, end, old, new in zip(labels, ends, heights, label_heights, strict=True):
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


def spread(
    positions: Sequence[float], gap: float, *, within: tuple[float, float] | None = None
) -> list[float]:
    """The nearest positions (least squares) in the same order with distances of `gap` or more.

    `within`: limits, half a gap inside of which they are moved where these have room for all.

    >>> spread([0.0, 1.0, 9.0], gap=2.0)
    [-0.5, 1.5, 9.0]
    >>> spread([0.0, 1.0, 9.0], gap=2.0, within=(0.0, 10.0))
    [1.0, 3.0, 9.0]
    """
    order = np.argsort(positions, kind="stable")
    blocks: list[tuple[float, int]] = []  # neighbours that touch: sum of (position - rank x gap), n
    for rank, i in enumerate(order):
        total, n = positions[i] - rank * gap, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / n:
            above, m = blocks.pop()
            total, n = total + above, n + m
        blocks.append((total, n))
    ranks = gap * np.arange(len(order))
    apart = ranks + np.concatenate([np.full(n, total / n) for total, n in blocks] or [np.empty(0)])
    if within is not None and gap * len(order) <= within[1] - within[0]:
        low, high = within[0] + gap / 2, within[1] - gap / 2
        apart = np.maximum(np.minimum(apart, high - ranks[::-1]), low + ranks)
    out = np.empty(len(order))
    out[order] = apart
    return out.tolist()


def mark_labels(ax: Axes, labels: Sequence[Label], *, avoid: np.ndarray) -> None:
    """Writes texts beside points, where they cover neither each other nor other points.

    Of eight positions around each point it takes the one inside the axes that covers least of the
    points `avoid` (q, 2) and of the other labels. Set limits before.
    """
    inside = ax.get_window_extent()
    point = ax.figure.dpi / 72
    away = 7 * point
    obstacles = ax.transData.transform(avoid) if len(avoid) else np.empty((0, 2))
    boxes: list[Any] = []
    for label in labels:
        x, y = ax.transData.transform((label.x, label.y))
        text = ax.annotate(
            label.text,
            (label.x, label.y),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=SMALL,
            color=label.colour,
            path_effects=halo(2.5),
            zorder=9,
        )
        size = text.get_window_extent()
        w, h = size.width, size.height
        best = (np.inf, 0.0, 0.0)
        for i, (right, up) in enumerate(PLACES):
            left = x + right * away - w * (1 - right) / 2
            low = y + up * away - h * (1 - up) / 2
            box = np.array([left, low, left + w, low + h])
            cost = 0.01 * i + _hidden(box, obstacles) + sum(_overlap(box, b) for b in boxes) / h**2
            cost += 20 * (1 - _overlap(box, np.asarray(inside.extents)) / (w * h))
            best = min(best, (cost, left, low))
        _, left, low = best
        boxes.append(np.array([left, low, left + w, low + h]))
        text.set_position(((left - x) / point, (low - y) / point))


PLACES = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """The area that two boxes (x0, y0, x1, y1) share."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    return float(np.prod(np.maximum(sides, 0)))


def _hidden(box: np.ndarray, points: np.ndarray) -> float:
    """The square root of the number of points in a box."""
    covered = ((points > box[:2]) & (points < box[2:])).all(1)
    return float(np.sqrt(covered.sum()))
