"""The surface over a plane as a landscape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.errors import ConfigError, DataError
from lowland.plots.overlays import MISSING, caption, colour_bar, overlay, title, words_below
from lowland.plots.shading import BANDS, PERCEPTUAL, Shading, shading
from lowland.plots.style import MUTED, SMALL, canvas, halo, numbers
from lowland.plots.surface import axis_labels, contoured, figure_of, masked
from lowland.records import SurfaceResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHTS = ("log", "linear")
FINE = 121  # points a side that are drawn, at least: between them bands have smooth edges


def surface3d(
    record: SurfaceResult,
    *,
    ax: Axes | None = None,
    figure: str = "loss",
    height: str = "log",
    scale: str = "classic",
    vmax: float | None = None,
    alpha: float | None = None,
    bands: int = BANDS,
    cmap: str = PERCEPTUAL,
    contours: bool = True,
    elevation: float = 32.0,
    azimuth: float = -62.0,
) -> Axes:
    """Draws one figure over a plane as a landscape in three dimensions, cut off at `vmax`.

    Args:
        height: "log" gives each band of colour the same height, so that valleys are seen beside
            mountains; "linear": heights are values.
        figure, scale, vmax, alpha, bands, cmap: as for `surface`.
        contours: the flat picture on the floor.
        elevation, azimuth: where it is seen from, in degrees.

    Where values are NaN or infinite there is a hole. `ax` must have three dimensions:
    `figure.add_subplot(projection="3d")`.

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
    values = figure_of(record, figure)
    shaded = shading(values, figure, scale=scale, vmax=vmax, alpha=alpha, bands=bands, cmap=cmap)
    x, y = numbers(record.x), numbers(record.y)
    shades = masked(values, shaded).filled(np.nan)
    finite = np.isfinite(values)
    top = shaded.levels[-1]
    if height == "log":
        heights, low, high = np.minimum(shades, bands), 0.0, float(bands)
    else:
        heights = np.where(finite, np.minimum(values, top), np.nan)
        low, high = float(shaded.levels[0]), float(top)
    floor = low - 0.45 * (high - low) if contours else low
    fine = [
        np.interp(np.linspace(0, 1, max(FINE, len(z))), np.linspace(0, 1, len(z)), z)
        for z in (x, y)
    ]
    mesh = np.meshgrid(*fine)
    with canvas(ax, size=(7.2, 5.6), projection="3d") as ax:
        axes: Any = ax
        axes.computed_zorder = False  # the order of drawing is ours: lines lie on the surface
        if contours:
            contoured(axes, x, y, masked(values, shaded), shaded, zdir="z", offset=floor, zorder=1)
        drawn = between(x, y, heights, *mesh)
        axes.plot_surface(
            *mesh,
            drawn,
            facecolors=_colours(between(x, y, shades, *mesh), shaded),
            rcount=FINE,
            ccount=FINE,
            linewidth=0,
            antialiased=False,
            zorder=2,
        )
        lift = 0.01 * (high - low)
        labels, _ = overlay(ax, record, height=lambda xy: between(x, y, heights, *xy.T) + lift)
        for label in labels:
            at = float(between(x, y, heights, np.array([label.x]), np.array([label.y]))[0])
            axes.text(
                label.x,
                label.y,
                (at if np.isfinite(at) else floor) + 0.06 * (high - low),
                label.text,
                color=label.colour,
                fontsize=SMALL,
                ha="center",
                va="bottom",
                path_effects=halo(2.5),
                zorder=9,
            )
        axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), zlim=(floor, high), **axis_labels(record))
        if height == "log":
            axes.set_zticks(range(0, bands + 1), shaded.labels())
        wide, deep = np.ptp(x), np.ptp(y)
        most = max(wide, deep)
        axes.set_box_aspect((max(wide / most, 0.4), max(deep / most, 0.4), 0.62), zoom=0.95)
        axes.view_init(elevation, azimuth)
        for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
            axis.pane.set(facecolor="white", edgecolor="#dddddd")
            axis._axinfo["grid"].update(color="#e8e8e8", linewidth=0.8)
        axes.tick_params(labelsize=SMALL, pad=1)
        colour_bar(ax, shaded, title(record, figure), place=(1.02, 0.2, 0.035, 0.6))
        text = caption(record, figure, int((~finite).sum()), finite.size)
        words_below(ax, text, width=85, offset=4)
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
    found: np.ndarray = (1 - t) * ((1 - s) * values[i, j] + s * values[i, j + 1])
    found = found + t * ((1 - s) * values[i + 1, j] + s * values[i + 1, j + 1])
    return np.where((s < 0) | (s > 1) | (t < 0) | (t > 1), np.nan, found)


def _colours(shades: np.ndarray, shaded: Shading) -> np.ndarray:
    """A band's colour for each facet's first corner."""
    last = shaded.bands if shaded.over else shaded.bands - 1
    index = np.clip(np.nan_to_num(np.floor(shades)), 0, last).astype(int)
    found: np.ndarray = shaded.colours[index]
    return found
