"""What is drawn over a surface: marks, curves, projected paths, and the words below it."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.metrics import axis_of, metric_of
from lowland.plots.labels import Label
from lowland.plots.shading import Shading, percent
from lowland.plots.style import INK, MUTED, PALE, SMALL, halo, numbers
from lowland.records import SurfaceResult, TernaryResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar

INKS = ("#D55E00", "#CC79A7", "#009E73")  # of curves: with a rim seen on any shade
CORNERS = 25  # points of a curve: of so few, each is a corner
HIDDEN = 0.35  # how much is seen of what lies behind a hill
MISSING = "#bdbdbd"  # what no band's colour is: the maps have no grey
BATCHNORM = {
    "refresh": "BatchNorm statistics recomputed at each point",
    "frozen": "BatchNorm statistics frozen",
}


def title(record: SurfaceResult | TernaryResult, metric: str) -> str:
    """The title of a metric: the split if the record has one, the name and the unit."""
    before, _, last = metric.rpartition("_")
    if metric_of(last) is not None:
        name = f"{before.replace('_', ' ')} {axis_of(last, percent=percent(last))}".strip()
    else:
        name = metric.replace("_", " ") + (" (%)" if percent(metric) else "")
    split = "" if before == "test" else record.split
    return f"{split} {name}".strip()


class Flat:
    """Where a point of the plane is drawn, and whether it is seen: here always."""

    def columns(self, xy: np.ndarray) -> list[np.ndarray]:  # (q, 2) -> 2 x (q,)
        return [*xy.T]

    def visible(self, xy: np.ndarray) -> np.ndarray:  # (q, 2) -> (q,) bool
        return np.ones(len(xy), bool)


def overlay(
    ax: Axes, record: SurfaceResult, *, onto: Flat | None = None
) -> tuple[list[Label], np.ndarray]:
    """Draws curves, paths and marks; gives the marks' labels and all points drawn, (q, 2).

    Curves are solid, straight ones dashed, and closed where they end where they begin, as the sides
    of a simplex; marks are dots, bends diamonds; a path's markers grow
    darker on its way. What a hill hides is faint.
    """
    onto = onto or Flat()
    points = [np.empty((0, 2))]
    inks = iter(INKS * len(record.curves))

    def line(xy: np.ndarray, name: str, **style: Any) -> None:
        visible = onto.visible(xy)
        for part, opacity in ((visible, 1.0), (~visible, HIDDEN)):
            if part.any():
                columns = onto.columns(np.where(_widened(part)[:, None], xy, np.nan))
                label = name if opacity == 1 or not visible.any() else None
                rim = halo(style["linewidth"] + 2) if opacity == 1 else None
                ax.plot(*columns, **style, label=label, alpha=opacity, path_effects=rim)
        points.append(xy)

    for name, curve in record.curves.items():
        xy = numbers(curve)
        straight = _straight(xy)
        xy = _dense(xy[[0, -1]] if straight else xy)
        ink, dash = (INK, "--") if straight else (next(inks), "-")
        line(xy, name, color=ink, linestyle=dash, linewidth=2, zorder=5)
    for name, path in record.paths.items():
        xy = numbers(path["coords"])
        label = f"{name}, {_off(numbers(path['residual']))}" if "residual" in path else name
        dot: dict[str, Any] = {"marker": "o", "markersize": 4, "markeredgecolor": INK}
        line(xy, label, color=INK, linewidth=1, zorder=6, markerfacecolor=PALE, markevery=[], **dot)
        for i, point in enumerate(xy):
            shade = f"{1 - i / max(len(xy) - 1, 1):.3f}"  # from white to black
            opacity = 1.0 if onto.visible(point[None])[0] else HIDDEN
            columns = onto.columns(point[None])
            ax.plot(*columns, **dot, markerfacecolor=shade, alpha=opacity, zorder=7)
    labels = []
    for name, mark in record.marks.items():
        xy = numbers(mark).reshape(1, -1)
        marker = "D" if "bend" in name else "o"
        opacity = 1.0 if onto.visible(xy)[0] else HIDDEN
        style: dict[str, Any] = {
            "color": INK,
            "markeredgecolor": "white",
            "markeredgewidth": 1.2,
            "alpha": opacity,
        }
        ax.plot(*onto.columns(xy), marker, **style, markersize=7 + (marker == "o"), zorder=8)
        labels.append(Label(float(xy[0, 0]), float(xy[0, 1]), name, INK))
        points.append(xy)
    return labels, np.concatenate(points)


def _straight(xy: np.ndarray) -> bool:  # (q, 2)
    """Whether a curve is its chord, to a thousandth of its length."""
    way, steps = xy[-1] - xy[0], xy - xy[0]
    off = np.abs(way[0] * steps[:, 1] - way[1] * steps[:, 0]).max()
    return bool(way @ way > 0 and off < 1e-3 * (way @ way))


def _dense(xy: np.ndarray) -> np.ndarray:  # (q, 2) -> (r, 2)
    """A line of few points through many, evenly along it, its corners among them.

    Sides that are drawn from corner to corner would leave a landscape, and labels would not know
    of them.
    """
    steps = np.linalg.norm(np.diff(xy, axis=0), axis=1)
    if len(xy) > CORNERS or not (np.isfinite(steps).all() and steps.sum() > 0):
        return xy
    each = np.maximum(np.ceil(200 * steps / steps.sum()), 1).astype(int)
    parts = [
        np.linspace(a, b, n, endpoint=False) for a, b, n in zip(xy[:-1], xy[1:], each, strict=True)
    ]
    return np.concatenate([*parts, xy[-1:]])


def _widened(part: np.ndarray) -> np.ndarray:
    """A point more at the front, so that the parts of a line meet."""
    wide = part.copy()
    wide[1:] |= part[:-1]
    return wide


def _off(residual: np.ndarray) -> str:
    """How far a path is from the plane."""
    low, high = (f"{x:.2g}" for x in (residual.min(initial=np.inf), residual.max(initial=0.0)))
    if not residual.max(initial=0.0) > 1e-6:
        return "on the plane"
    return f"off the plane by {low} to {high}" if low != high else f"off the plane by {low}"


def colour_bar(
    ax: Axes, shading: Shading, name: str, *, place: tuple[float, float, float, float]
) -> Colorbar:
    """A colour bar beside the axes, at `place`; `level_ticks` writes its levels."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    count = shading.bands + shading.over
    mapped = ScalarMappable(
        BoundaryNorm(np.arange(count + 1), count), ListedColormap(shading.colours[:count])
    )
    bar = ax.figure.colorbar(mapped, cax=ax.inset_axes(place), spacing="uniform")
    bar.ax.tick_params(which="both", length=0, labelsize=SMALL, labelcolor=INK)
    bar.outline.set_edgecolor(MUTED)
    bar.set_label(name)
    bar.set_ticks(range(shading.bands + 1), labels=shading.labels())
    bar.minorticks_off()
    return bar


def level_ticks(bar: Colorbar, shading: Shading) -> None:
    """The levels at the bands' edges, as many as there is room for, and "> the last" on top."""
    ticks = [float(i) for i in range(shading.bands + 1)]
    texts = shading.labels()
    room = bar.ax.get_window_extent().height * 72 / bar.ax.figure.dpi  # points
    room /= shading.bands + shading.over
    step = max(1, int(np.ceil(1.25 * SMALL / max(room, 1.0))))
    keep = sorted({0, *range(shading.bands, step - 1, -step)})
    if shading.over:
        ticks.append(shading.bands + 0.5)
        texts.append(f"> {texts[-1]}")
        if room < 2.6 * SMALL:  # no room for both: this label has the last level, too
            keep.pop()
        keep.append(len(ticks) - 1)
    bar.set_ticks([ticks[i] for i in keep], labels=[texts[i] for i in keep])
    bar.minorticks_off()


def settle(ax: Axes) -> None:
    """Computes the layout, which texts placed by their size in points need.

    A drawing computes it first; all of a drawing would take twice as long.
    """
    root: Any = ax.get_figure(root=True)
    engine = root.get_layout_engine()
    if engine is not None:
        engine.execute(root)
    renderer = root._get_renderer()
    for axes in root.axes:
        _apply_aspect(axes, renderer)


def _apply_aspect(ax: Any, renderer: Any) -> None:
    """Moves axes, and those inside them, to where they are drawn."""
    locator = ax.get_axes_locator()
    ax.apply_aspect(locator(ax, renderer) if locator else None)
    for child in ax.child_axes:
        _apply_aspect(child, renderer)


def caption(record: SurfaceResult | TernaryResult, missing: int, total: int) -> str:
    """How metrics were computed: BatchNorm, examples, points not evaluated or not finite."""
    parts = [BATCHNORM.get(record.batchnorm, "")]
    if record.examples:
        parts.append(f"{record.examples:,} {record.split} examples".replace("  ", " "))
    if record.evaluations < total:
        parts.append(f"{record.evaluations:,} of {total:,} points evaluated, others interpolated")
    if missing:
        parts.append(f"grey: NaN or infinite, {missing:,} of {total:,} points")
    return "; ".join(part for part in parts if part)


def letters_across(ax: Axes) -> int:
    """How many letters of the words below are as wide as the axes, before a layout is done."""
    inches = ax.get_position(original=True).width * ax.figure.bbox.width / ax.figure.dpi
    return max(24, int(15 * inches))


def words_below(ax: Axes, text: str, *, width: int, offset: float | None = None) -> None:
    """A legend of what has a name, and a small text, below the label of x.

    The space above stays free for titles. `offset`: points below the axes; None: below the label.
    """
    from matplotlib.transforms import ScaledTranslation

    if offset is None:
        low = ax.xaxis.get_tightbbox()
        offset = (ax.get_window_extent().y0 - low.y0) * 72 / ax.figure.dpi + 5 if low else 5.0
    offset_transform = ScaledTranslation(0, -offset / 72, ax.figure.dpi_scale_trans)
    anchor: Any = ax.transAxes + offset_transform
    handles, names = ax.get_legend_handles_labels()
    where: Any = ax.transAxes, offset_transform
    if handles:
        wide = [len(name) + 6 for name in names]
        columns = len(names) if sum(wide) <= width else max(1, width // max(wide))
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
            ncols=columns,
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
