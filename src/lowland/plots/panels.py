"""Several panels in the place of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lowland.plots.style import SMALL, light_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Box = tuple[float, float, float, float]  # left, bottom, width, height


def panels(ax: Axes, boxes: Sequence[Box], **options: Any) -> list[Axes]:
    """Divides the place of axes, that of the user's or new ones, among panels: a box each.

    The first panel is `ax` itself and the others are its children, so that they follow wherever a
    layout puts it. Boxes are fractions of the place; `options` are of the children, as `sharex`.

    >>> from lowland.plots.style import canvas
    >>> with canvas(None) as ax:
    ...     low, high = panels(ax, [(0, 0, 1, 0.4), (0, 0.6, 1, 0.4)], sharex=ax)
    >>> low is ax, high in ax.child_axes
    (True, True)
    """
    from matplotlib.transforms import Bbox

    left, low, wide, high = boxes[0]

    def place(axes: Any, renderer: Any) -> Bbox:
        whole = axes.get_position(original=True)
        return Bbox.from_bounds(
            whole.x0 + left * whole.width,
            whole.y0 + low * whole.height,
            wide * whole.width,
            high * whole.height,
        )

    ax.set_axes_locator(place)
    # a child's place is in units of its parent's, which is not the whole
    children = [
        ax.inset_axes(((x - left) / wide, (y - low) / high, w / wide, h / high), **options)
        for x, y, w, h in boxes[1:]
    ]
    for child in children:
        light_grid(child)
    return [ax, *children]


def tick_size(ax: Axes) -> float:
    """The font size of tick labels, for children of the axes."""
    labels = ax.get_xticklabels()
    return float(labels[0].get_fontsize()) if labels else SMALL


def align_labels(column: Sequence[Axes]) -> None:
    """Puts the labels of y of panels above one another in one line. The layout must be done."""
    for ax in column:
        ax.yaxis.get_tightbbox()  # moves its label beside the ticks
    left = min(ax.yaxis.label.get_window_extent().x1 for ax in column)
    for ax in column:
        box = ax.get_window_extent()
        ax.yaxis.set_label_coords((left - box.x0) / box.width, 0.5)
