"""What is drawn over a surface: marks, curves, projected paths, and the words below it."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.plots.labels import Label
from lowland.plots.shading import Shading, percent
from lowland.plots.style import INK, MUTED, SMALL, halo, numbers
from lowland.records import SurfaceResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Height = Callable[[np.ndarray], np.ndarray]  # (q, 2) -> (q,)
INKS = (INK, "#D55E00", "#CC79A7", "#0072B2")  # of curves: apart on any shade
MISSING = "#bdbdbd"  # what no band's colour is: the maps have no grey
BATCHNORM = {
    "refresh": "BatchNorm statistics recomputed at each point",
    "frozen": "BatchNorm statistics frozen",
}
NAMES = {
    "loss": "training loss (nats)",
    "error": "training error (%)",
    "test_loss": "test loss (nats)",
    "test_error": "test error (%)",
}


def title(record: SurfaceResult, figure: str) -> str:
    """What a figure is, with its unit."""
    unit = " (%)" if percent(figure) else ""
    return NAMES.get(figure, figure.replace("_", " ") + unit)


def overlay(
    ax: Axes, record: SurfaceResult, *, height: Height | None = None
) -> tuple[list[Label], np.ndarray]:
    """Draws curves, paths and marks; gives the marks' labels and all points drawn, (q, 2).

    Curves are solid, straight ones dashed; marks are dots, bends diamonds; a path's markers grow
    darker on its way. `height` gives the third coordinate for axes that have one.
    """

    def columns(xy: np.ndarray) -> list[np.ndarray]:
        return [*xy.T] if height is None else [*xy.T, height(xy)]

    above = {} if height is None else {"depthshade": False}
    seen = [np.empty((0, 2))]
    inks = iter(INKS[1:] * len(record.curves))
    for name, curve in record.curves.items():
        xy = numbers(curve)
        straight = len(xy) == 2
        xy = np.linspace(xy[0], xy[-1], 101) if straight else xy
        style = {"color": INK if straight else next(inks), "linestyle": "--" if straight else "-"}
        ax.plot(*columns(xy), **style, linewidth=2, path_effects=halo(4), label=name, zorder=5)
        seen.append(xy)
    for name, path in record.paths.items():
        xy = numbers(path["coords"])
        label = f"{name}, {_off(numbers(path['residual']))}" if "residual" in path else name
        ax.plot(*columns(xy), color=INK, linewidth=1, path_effects=halo(2.5), label=label, zorder=6)
        shades = np.linspace(1, 0, len(xy))[:, None] * np.ones(3)
        ax.scatter(*columns(xy), s=16, c=shades, edgecolors=INK, linewidths=0.8, zorder=7, **above)
        seen.append(xy)
    labels = []
    for name, mark in record.marks.items():
        xy = numbers(mark).reshape(1, -1)
        marker = "D" if name.startswith("bend") else "o"
        style = {"color": INK, "markeredgecolor": "white", "markeredgewidth": 1.2}
        ax.plot(*columns(xy), marker, **style, markersize=7 + (marker == "o"), zorder=8)
        labels.append(Label(float(xy[0, 0]), float(xy[0, 1]), name, INK))
        seen.append(xy)
    return labels, np.concatenate(seen)


def _off(residual: np.ndarray) -> str:
    """How far a path is from the plane."""
    low, high = (f"{x:.2g}" for x in (residual.min(initial=np.inf), residual.max(initial=0.0)))
    if not residual.max(initial=0.0) > 1e-6:
        return "on the plane"
    return f"off the plane by {low} to {high}" if low != high else f"off the plane by {low}"


def colour_bar(
    ax: Axes, shading: Shading, name: str, *, place: tuple[float, float, float, float]
) -> Axes:
    """The bands with their levels beside the axes, and "> the last" on top where values are."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    count = shading.bands + shading.over
    texts = shading.labels()
    ticks = [float(i) for i in range(shading.bands + 1)]
    if shading.over:
        ticks.append(shading.bands + 0.5)
        texts.append(f"> {texts[-1]}")
    cax = ax.inset_axes(place)
    mapped = ScalarMappable(
        BoundaryNorm(np.arange(count + 1), count), ListedColormap(shading.colours[:count])
    )
    bar = ax.figure.colorbar(mapped, cax=cax, spacing="uniform")
    bar.set_ticks(ticks, labels=texts)
    bar.ax.tick_params(length=0, labelsize=SMALL)
    bar.outline.set_edgecolor(MUTED)
    bar.set_label(name)
    return cax


def caption(record: SurfaceResult, figure: str, missing: int, total: int) -> str:
    """How the figures were found: BatchNorm, rows, and what was not evaluated or not finite."""
    parts = [BATCHNORM.get(record.batchnorm, "")]
    if record.rows and not figure.startswith("test_"):
        parts.append(f"{record.rows:,} training rows")
    if record.evaluated < total:
        parts.append(f"{record.evaluated:,} of {total:,} points evaluated, others interpolated")
    if missing:
        parts.append(f"grey: NaN or infinite, {missing:,} of {total:,} points")
    return "; ".join(part for part in parts if part)


def words_below(ax: Axes, text: str, *, width: int, offset: float | None = None) -> None:
    """A legend of what has a name, and a small text, below the label of x.

    The space above stays free for titles. `offset`: points below the axes; None: below the label.
    """
    from matplotlib.transforms import ScaledTranslation

    if offset is None:
        low = ax.xaxis.get_tightbbox()
        offset = (ax.get_window_extent().y0 - low.y0) * 72 / ax.figure.dpi + 5 if low else 5.0
    moved = ScaledTranslation(0, -offset / 72, ax.figure.dpi_scale_trans)
    anchor: Any = ax.transAxes + moved
    handles, names = ax.get_legend_handles_labels()
    where: Any = ax.transAxes, moved
    if handles:
        legend = ax.legend(
            handles,
            names,
            loc="upper left",
            bbox_to_anchor=(0, 0),
            bbox_transform=anchor,
            borderaxespad=0,
            borderpad=0,
            frameon=False,
            fontsize=SMALL,
            ncols=1 if sum(len(name) + 6 for name in names) > width else len(names),
        )
        where = legend
    if text:
        ax.annotate(
            fill(text, width),
            (0, 0),
            xycoords=where if handles else anchor,
            xytext=(0, -5 if handles else 0),
            textcoords="offset points",
            va="top",
            color=MUTED,
            fontsize=SMALL - 1,
            annotation_clip=False,
        )
