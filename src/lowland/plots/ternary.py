"""The surface over a triangle."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.errors import ConfigError, DataError
from lowland.plots.overlays import (
    MISSING,
    caption,
    colour_bar,
    level_ticks,
    settle,
    title,
    words_below,
)
from lowland.plots.shading import PERCEPTUAL, percent, shading
from lowland.plots.style import INK, SMALL, canvas, numbers
from lowland.plots.surface import band_ends, inner_edges, masked
from lowland.records import TernaryResult
from lowland.records.shades import BANDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLAT = 0.08  # height over base: a flatter triangle is drawn with equal sides
EVEN = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])


def ternary(
    record: TernaryResult,
    *,
    ax: Axes | None = None,
    metric: str = "loss",
    scale: str = "classic",
    vmax: float | None = None,
    alpha: float | None = None,
    bands: int = BANDS,
    cmap: str = PERCEPTUAL,
    contours: bool = True,
    show_points: bool = False,
) -> Axes:
    """Draws one metric over the triangle of three vertices, in its true proportions.

    Sides are proportional to the vertices' distances, which are in the caption. A triangle that is
    nearly a line is drawn with equal sides.

    Args:
        metric, scale, vmax, alpha, bands, cmap, contours: as for `surface`.
        show_points: dots where networks were evaluated.

    Triangles between points of which one is NaN or infinite are grey.

    >>> import torch
    >>> coords = torch.cat([torch.eye(3), torch.full((1, 3), 1 / 3)])
    >>> record = TernaryResult(coords, {"loss": coords.square().sum(1)}, names=["SGD", "SWA", "w2"])
    >>> axes = ternary(record)
    >>> [text.get_text() for text in axes.texts][:3]
    ['SGD', 'SWA', 'w2']
    """
    values = _values(record, metric)
    shaded = shading(values, metric, scale=scale, vmax=vmax, alpha=alpha, bands=bands, cmap=cmap)
    shades = masked(values, shaded)
    corners, true = _corners(record)
    mesh = _mesh(numbers(record.coords), corners)
    wide, high = np.ptp(corners, axis=0)
    size = (6.4, float(np.clip(4.0 * high / wide, 2.2, 4.2)) + 1.3)
    with canvas(ax, size=size, room=(0.16, 0.28)) as ax:
        ax.grid(False)
        ax.set_aspect("equal")
        for spine in ax.spines.values():
            spine.set_visible(False)
        ax.set(xticks=[], yticks=[], xlabel=_sides(record, true))
        filled = shades.filled(0.0)
        missing = np.broadcast_to(shades.mask, shades.shape)
        if missing.any():
            ax.tricontourf(mesh, 0 * filled, [-1, 1], colors=[MISSING], zorder=1)
            mesh.set_mask(missing[mesh.triangles].any(1))
        if mesh.mask is None or not mesh.mask.all():
            ends = band_ends(shades, shaded)
            ax.tricontourf(mesh, filled, ends, colors=shaded.colours[: len(ends) - 1], zorder=2)
            inner = inner_edges(shades, bands)
            if contours and len(inner):
                style: dict[str, Any] = {"linewidths": 0.7, "alpha": 0.7}
                ax.tricontour(mesh, filled, inner, colors="white", zorder=3, **style)
        if show_points:
            ax.plot(mesh.x, mesh.y, ".", color=INK, markersize=2, zorder=4)
        _vertices(ax, corners, record.names)
        place = (1.06, 0.08, 0.045, 0.84)
        bar = colour_bar(ax, shaded, title(record, metric), place=place)
        words = caption(record, int(shades.mask.sum()), shades.size)
        words_below(ax, words, width=85)
        settle(ax)
        level_ticks(bar, shaded)
    return ax


def _values(record: TernaryResult, metric: str) -> np.ndarray:
    """The values of a metric, errors in percent."""
    if metric not in record.metrics:
        names = ", ".join(record.metrics) or "none"
        raise ConfigError(f"metric: expected one of {names}, got {metric!r}.")
    values = numbers(record.metrics[metric]) * (100 if percent(metric) else 1)
    coords = tuple(record.coords.shape)
    if values.shape != coords[:1] or coords[1:] != (3,) or len(values) < 3:
        raise DataError(
            f"{metric}: expected (n,) values at (n, 3) coordinates, 3 at least, got "
            f"{values.shape} at {coords}."
        )
    return values


def _corners(record: TernaryResult) -> tuple[np.ndarray, bool]:  # (3, 2)
    """The vertices' places, the longest side below; and whether sides are true."""
    lengths = numbers(record.lengths)
    first = int(lengths.argmax())
    order = [(first + i) % 3 for i in range(3)]
    turned = TernaryResult(record.coords, {}, lengths=record.lengths[order])
    corners = numbers(turned.corners())
    true = bool(np.isfinite(lengths).all()) and corners[2, 1] > FLAT * corners[1, 0] > 0
    if not true:
        corners = EVEN
    # vertex order[i] is at corner i
    return corners[np.argsort(order)], true


def _sides(record: TernaryResult, true: bool) -> str:
    """How far the vertices are apart in weight space."""
    ends = [f"|{record.names[i]} − {record.names[(i + 1) % 3]}|" for i in range(3)]
    lengths = numbers(record.lengths)
    parts = [f"{name} = {length:.3g}" for name, length in zip(ends, lengths, strict=True)]
    text = "distances " + ", ".join(parts) + ("" if true else "; not in proportion")
    return fill(text, 72)


def _mesh(coords: np.ndarray, corners: np.ndarray) -> Any:
    """Triangles between the points, from a Delaunay triangulation with equal sides."""
    from matplotlib.tri import TriAnalyzer, Triangulation

    try:
        even = Triangulation(*(coords @ EVEN).T)
    except RuntimeError as error:
        raise DataError("coords: all points lie on a line; give some inside.") from error
    flat = TriAnalyzer(even).get_flat_tri_mask(rescale=False)  # between points of a side
    x, y = (coords @ corners).T
    return Triangulation(x, y, even.triangles[~flat])


def _vertices(ax: Axes, corners: np.ndarray, names: Sequence[str]) -> None:
    """The triangle's sides, and its vertices with their names above and below."""
    ax.plot(*corners[[0, 1, 2, 0]].T, color=INK, linewidth=1, zorder=4)
    ax.plot(*corners.T, "o", color=INK, markeredgecolor="white", markersize=8, zorder=5)
    high, right = corners[:, 1] > 0, corners[:, 0] > corners[:, 0].mean()
    for (x, y), name, above, last in zip(corners, map(str, names), high, right, strict=True):
        side = "center" if above or len(name) < 8 else "right" if last else "left"
        ax.annotate(
            name,
            (x, y),
            xytext=(0, 8 if above else -8),
            textcoords="offset points",
            ha=side,
            va="bottom" if above else "top",
            color=INK,
            fontsize=SMALL,
            annotation_clip=False,
        )
    wide, tall = np.ptp(corners, axis=0)
    ax.set(xlim=(-0.03 * wide, 1.03 * wide), ylim=(-0.08 * wide, tall + 0.08 * wide))
