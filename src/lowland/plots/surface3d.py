"""The surface over a plane as a landscape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.errors import ConfigError, DataError
from lowland.plots.labels import mark_labels
from lowland.plots.overlays import (
    Flat,
    caption,
    colour_bar,
    level_ticks,
    overlay,
    settle,
    title,
    words_below,
)
from lowland.plots.shading import PERCEPTUAL, Shading, shading
from lowland.plots.style import SMALL, canvas, numbers
from lowland.plots.surface import axis_labels, contoured, masked, metric_values
from lowland.records import SurfaceResult
from lowland.records.shades import BANDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHTS = ("log", "linear")
FINE = 121  # points a side that are drawn


def surface3d(
    record: SurfaceResult,
    *,
    ax: Axes | None = None,
    metric: str = "loss",
    height: str = "log",
    scale: str = "classic",
    vmax: float | None = None,
    alpha: float | None = None,
    bands: int = BANDS,
    cmap: str = PERCEPTUAL,
    contours: bool = True,
    elevation: float = 40.0,
    azimuth: float = -62.0,
) -> Axes:
    """Draws one metric over a plane as a landscape in three dimensions, cut off at `vmax`.

    Args:
        height: "log" gives each band of colour the same height, so that valleys are seen beside
            mountains; "linear": heights are values.
        metric, scale, vmax, alpha, bands, cmap: as for `surface`.
        contours: the flat picture on the floor.
        elevation, azimuth: of the view, in degrees.

    Where values are NaN or infinite there is a hole. `ax` must have three dimensions:
    `figure.add_subplot(projection="3d")`. Labels and hidden parts are computed for this view.

    >>> import torch
    >>> x = torch.linspace(-1, 1, 5)
    >>> axes = surface3d(SurfaceResult(x, x, {"loss": x**2 + 4 * x[:, None] ** 2}))
    >>> axes.name, [label.get_text() for label in axes.get_zticklabels()][-1]
    ('3d', '5')
    """
    if height not in HEIGHTS:
        raise ConfigError(f"height: expected one of {', '.join(HEIGHTS)}, got {height!r}.")
    if ax is not None and getattr(ax, "name", "") != "3d":
        raise ConfigError('ax: expected axes of three dimensions; make them with projection="3d".')
    if record.y is None:
        raise DataError("a scan of a line has no landscape; draw it with record.plot().")
    values = metric_values(record, metric)
    shaded = shading(values, metric, scale=scale, vmax=vmax, alpha=alpha, bands=bands, cmap=cmap)
    x, y = numbers(record.x), numbers(record.y)
    shades = masked(values, shaded).filled(np.nan)
    finite = np.isfinite(values)
    top = shaded.levels[-1]
    if height == "log":
        heights, low, high = np.minimum(shades, bands), 0.0, float(bands)
    else:
        heights = np.where(finite, np.minimum(values, top), np.nan)
        low, high = float(shaded.levels[0]), float(top)
    floor = low - 0.55 * (high - low) if contours else low
    box = _box(x, y)
    relief = Relief(x, y, heights, floor, high, box, elevation, azimuth)
    mesh = np.meshgrid(*(np.linspace(z[0], z[-1], FINE) for z in (x, y)))
    with canvas(ax, size=(7.2, 5.2), projection="3d", room=(0.08, 0.16)) as ax:
        axes: Any = ax
        axes.computed_zorder = False  # the order of drawing is ours: lines lie on the surface
        axes.set_proj_type("ortho")
        if contours:
            contoured(axes, x, y, masked(values, shaded), shaded, zdir="z", offset=floor, zorder=1)
        relief_heights = between(x, y, heights, *mesh)
        landscape = axes.plot_surface(
            *mesh,
            relief_heights,
            facecolors=_lit(
                _colours(between(x, y, shades, *mesh), shaded), relief_heights / (high - low)
            ),
            rcount=FINE,
            ccount=FINE,
            linewidth=0,
            antialiased=False,
            shade=False,
            zorder=2,
        )
        labels, points = overlay(ax, record, onto=relief)
        axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), zlim=(floor, high), **axis_labels(record))
        if height == "log":
            axes.set_zticks(range(0, bands + 1), shaded.labels())
        else:
            axes.set_zticks([tick for tick in axes.get_zticks() if low <= tick <= high])
        axes.set_box_aspect(box, zoom=1.0)
        axes.view_init(elevation, azimuth)
        for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
            axis.pane.set(facecolor="white", edgecolor="#dddddd")
            axis._axinfo["grid"].update(color="#e8e8e8", linewidth=0.8)
        axes.tick_params(labelsize=SMALL, pad=1)
        bar = colour_bar(ax, shaded, title(record, metric), place=(1.1, 0.3, 0.035, 0.55))
        text = caption(record, int((~finite).sum()), finite.size)
        words_below(ax, text, width=85, offset=4)
        landscape.set_visible(False)  # the layout does not need its many facets
        settle(ax)
        landscape.set_visible(True)
        level_ticks(bar, shaded)
        flat = relief.projected(points, axes.get_proj())
        marks = relief.projected(np.array([label[:2] for label in labels]), axes.get_proj())
        mark_labels(
            ax,
            [label._replace(x=x, y=y) for label, (x, y) in zip(labels, marks, strict=True)],
            avoid=flat,
        )
    return ax


def between(
    x: np.ndarray, y: np.ndarray, values: np.ndarray, at: np.ndarray, up: np.ndarray
) -> np.ndarray:
    """Bilinear interpolation of values (m, n) at points (at, up); NaN beside NaN and outside.

    >>> one = np.array([0.0, 1.0])
    >>> float(between(one, one, np.array([[0.0, 1.0], [2.0, 3.0]]), np.array(0.5), np.array(0.5)))
    1.5
    """
    j = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    i = np.clip(np.searchsorted(y, up, side="right") - 1, 0, len(y) - 2)
    s, t = (at - x[j]) / (x[j + 1] - x[j]), (up - y[i]) / (y[i + 1] - y[i])
    result: np.ndarray = (1 - t) * ((1 - s) * values[i, j] + s * values[i, j + 1])
    result = result + t * ((1 - s) * values[i + 1, j] + s * values[i + 1, j + 1])
    return np.where((s < 0) | (s > 1) | (t < 0) | (t > 1), np.nan, result)


class Relief(Flat):
    """Points on the landscape, and whether a hill hides them."""

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        heights: np.ndarray,
        floor: float,
        top: float,
        box: tuple[float, float, float],
        elevation: float,
        azimuth: float,
    ) -> None:
        self.x, self.y, self.heights = x, y, heights
        self.floor, self.lift = floor, 0.008 * (top - floor)
        up, turn = np.radians([elevation, azimuth])
        towards = np.array([np.cos(up) * np.cos(turn), np.cos(up) * np.sin(turn), np.sin(up)])
        extents = np.array([np.ptp(x), np.ptp(y), top - floor])
        self.towards = towards * extents / box  # the eye, in coordinates

    def columns(self, xy: np.ndarray) -> list[np.ndarray]:
        return [*xy.T, between(self.x, self.y, self.heights, *xy.T) + self.lift]

    def projected(self, xy: np.ndarray, projection: np.ndarray) -> np.ndarray:  # (q, 2) -> (q, 2)
        """The places of points in the picture; those in a hole are on the floor."""
        if not len(xy):
            return np.empty((0, 2))
        x, y, z = self.columns(xy)
        z = np.where(np.isfinite(z), z, self.floor)
        result = np.stack([x, y, z, np.ones_like(x)], axis=1) @ projection.T
        return np.asarray(result[:, :2] / result[:, 3:])

    def visible(self, xy: np.ndarray) -> np.ndarray:
        start = np.stack(self.columns(xy), axis=1)
        steps = np.linspace(0.02, 1.6, 120)[:, None, None]
        way = start + steps * self.towards  # (120, q, 3)
        ground = between(self.x, self.y, self.heights, way[..., 0], way[..., 1])
        visible: np.ndarray = ~(ground > way[..., 2] + 2 * self.lift).any(0)
        return visible


def _box(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """The sides of the box: in proportion to the plane unless it is very narrow."""
    wide, deep = np.ptp(x), np.ptp(y)
    longest = max(wide, deep)
    return max(wide / longest, 0.4), max(deep / longest, 0.4), 0.62


def _colours(shades: np.ndarray, shaded: Shading) -> np.ndarray:
    """The facets' colours, (m - 1, n - 1, 4), mixed where an edge between bands crosses one."""
    corners = np.stack([shades[:-1, :-1], shades[1:, :-1], shades[:-1, 1:], shades[1:, 1:]])
    corners = np.nan_to_num(corners)
    low, high = corners.min(0), corners.max(0)
    edge = np.rint((low + high) / 2)
    share = np.clip((high - edge) / np.maximum(high - low, 1e-12), 0, 1)[..., None]
    last = shaded.bands if shaded.over else shaded.bands - 1
    under, above = (np.clip(edge + i, 0, last).astype(int) for i in (-1, 0))
    result: np.ndarray = (1 - share) * shaded.colours[under] + share * shaded.colours[above]
    return result


def _lit(colours: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """A little darker where the slope turns away from a light in the north-west."""
    from matplotlib.colors import LightSource

    step = 1 / (len(heights) - 1)
    light = LightSource(azdeg=315, altdeg=50).hillshade(
        np.nan_to_num(heights), vert_exag=0.5, dx=step, dy=step
    )
    lit = colours.copy()
    lit[..., :3] *= (0.8 + 0.2 * light[:-1, :-1])[..., None]
    return lit
