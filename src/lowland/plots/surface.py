"""The surface over a plane, or along a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.errors import ConfigError, DataError
from lowland.plots.labels import Label, mark_labels
from lowland.plots.overlays import (
    MISSING,
    caption,
    colour_bar,
    level_ticks,
    overlay,
    settle,
    title,
    words_below,
)
from lowland.plots.scales import log_where_wide
from lowland.plots.shading import PERCEPTUAL, Shading, percent, require_scale, shading
from lowland.plots.style import INK, canvas, colour, numbers
from lowland.records import SurfaceResult
from lowland.records.shades import BANDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def surface(
    record: SurfaceResult,
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
    r"""Draws one metric over a plane, in bands of colour with contours between them.

    Args:
        metric: "loss", "test_error" or another that the record holds; errors are in percent.
        scale: "classic", logarithmic in the distance from the least value, see `shading`; "log",
            "linear".
        vmax: the last level; what is over it has the map's last colour. None: 5 for losses and 40
            (%) for errors, else the largest value.
        alpha: the classic scale's finest step, \(\exp(\alpha)\). None: -5 for losses, -1 for
            errors in percent.
        bands: their number, without the one above `vmax`.
        cmap: any of matplotlib's maps; "jet_r" is the papers'.
        contours: lines at the levels.
        show_points: dots where networks were evaluated.

    Values that are NaN or infinite are grey and nothing is interpolated over them. A record without
    `y` is drawn as a line over x, without bands, colours and contours.

    >>> import torch
    >>> x = torch.linspace(-1, 1, 5)
    >>> about = {"orthonormal": True, "split": "training"}
    >>> record = SurfaceResult(
    ...     x, x, {"loss": x**2 + 4 * x[:, None] ** 2}, examples=100, about=about
    ... )
    >>> axes = surface(record)
    >>> axes.get_xlabel()
    'distance in weight space'
    >>> axes.texts[0].get_text()
    'BatchNorm statistics recomputed at each point; 100 training examples'
    """
    require_scale(scale)
    values = metric_values(record, metric)
    if record.y is None:
        return _line(record, values, metric, ax=ax, scale=scale, vmax=vmax, show_points=show_points)
    shaded = shading(values, metric, scale=scale, vmax=vmax, alpha=alpha, bands=bands, cmap=cmap)
    shades = masked(values, shaded)
    x, y = numbers(record.x), numbers(record.y)
    orthonormal, ratio = record.about.get("orthonormal", True), np.ptp(x) / np.ptp(y)
    wide, high = size_of(ratio if orthonormal else 1.0)
    size = (wide + 2.0, high + 1.0 + 0.2 * bool(record.paths))
    with canvas(ax, size=size, room=(0.08, 0.16)) as ax:
        ax.grid(False)
        ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), **axis_labels(record))
        ax.set_aspect("equal" if orthonormal and 0.2 < ratio < 5 else "auto")
        contoured(ax, x, y, shades, shaded, zorder=1)
        inner = inner_edges(shades, bands)
        if contours and len(inner):
            ax.contour(x, y, shades, inner, colors="white", linewidths=0.7, alpha=0.7, zorder=2)
        if show_points:
            i, j = np.nonzero(_evaluated_mask(record, values))
            ax.plot(x[j], y[i], ".", color=INK, markersize=2, zorder=3)
        labels, points = overlay(ax, record)
        narrow = 0.05 * np.clip(high / wide, 0.7, 4)
        bar = colour_bar(ax, shaded, title(record, metric), place=(1 + narrow / 2, 0, narrow, 1))
        text = caption(record, int(shades.mask.sum()), shades.size)
        words_below(ax, text, width=int(15 * (wide + 1)))
        settle(ax)
        level_ticks(bar, shaded)
        mark_labels(ax, labels, avoid=points)
    return ax


def masked(values: np.ndarray, shaded: Shading) -> np.ma.MaskedArray:
    """The values' bands, those that are not finite masked."""
    finite = np.isfinite(values)
    return np.ma.masked_array(shaded.shade(np.where(finite, values, shaded.levels[0])), ~finite)


def contoured(
    ax: Axes,
    x: np.ndarray,
    y: np.ndarray,
    shades: np.ma.MaskedArray,
    shaded: Shading,
    **options: Any,
) -> None:
    """Fills the bands; masked values are grey."""
    if shades.mask.any():
        ax.contourf(x, y, np.zeros(shades.shape), [-1, 1], colors=[MISSING], **options)
    ends = band_ends(shades, shaded)
    ax.contourf(x, y, shades, ends, colors=shaded.colours[: len(ends) - 1], **options)


def band_ends(shades: np.ma.MaskedArray, shaded: Shading) -> list[float]:
    """The edges of the bands, including the one above the last level."""
    edges = np.arange(1.0, shaded.bands + shaded.over)
    return [-1.0, *edges.tolist(), float(max(shades.max(), shaded.bands)) + 1]


def inner_edges(shades: np.ma.MaskedArray, bands: int) -> np.ndarray:
    """The edges of contours: those with values on both sides."""
    edges = np.arange(1.0, bands + 1)
    inner: np.ndarray = edges[(edges < shades.max()) & (edges > shades.min())]
    return inner


def size_of(ratio: float) -> tuple[float, float]:
    """Width and height of the axes, in inches, for the ratio of their extents."""
    wide = min(max(4.3 * ratio**0.5, 2.6), 6.4)
    return wide, min(max(wide / ratio, 1.4), 4.6)


def _evaluated_mask(record: SurfaceResult, values: np.ndarray) -> np.ndarray:
    """Where a network was evaluated."""
    return (
        np.ones(values.shape, bool)
        if record.evaluated_mask is None
        else record.evaluated_mask.cpu().numpy()
    )


def metric_values(record: SurfaceResult, metric: str) -> np.ndarray:
    """The values of a metric, errors in percent."""
    if metric not in record.metrics:
        names = ", ".join(record.metrics) or "none"
        raise ConfigError(f"metric: expected one of {names}, got {metric!r}.")
    values = numbers(record.metrics[metric]) * (100 if percent(metric) else 1)
    shape = (len(record.x),) if record.y is None else (len(record.y), len(record.x))
    if values.shape != shape or min(shape) < 2:
        raise DataError(
            f"{metric}: expected {shape} values with at least 2 a side, got {values.shape}."
        )
    for name, ticks in {"x": record.x, "y": record.y}.items():
        if ticks is not None and not bool((ticks.diff() > 0).all()):
            raise DataError(f"{name}: expected increasing coordinates, got others; sort them.")
    return values


def axis_labels(record: SurfaceResult) -> dict[str, str]:
    """Names of the axes: the record's, or components with their share of the variance.

    Coordinates are distances in weight space where the directions are orthonormal.
    """
    if "labels" in record.about:
        names = [str(name) for name in record.about["labels"]]
    elif record.explained_variance_ratio is not None:
        shares = record.explained_variance_ratio.tolist()
        names = [f"component {i + 1} ({share:.0%})" for i, share in enumerate(shares)]
    elif record.about.get("orthonormal"):
        names = ["distance in weight space"] * 2
    else:
        names = ["first direction", "second direction"]
    return dict(zip(("xlabel", "ylabel"), names, strict=False))


def _line(
    record: SurfaceResult,
    values: np.ndarray,
    metric: str,
    *,
    ax: Axes | None,
    scale: str,
    vmax: float | None,
    show_points: bool,
) -> Axes:
    """A metric along a line; logarithmic where positive values span more than a factor of 20."""
    x, finite = numbers(record.x), np.isfinite(values)
    if not finite.any():
        raise DataError(f"{metric}: all values are NaN or infinite; scan closer to the networks.")
    finite_values: np.ndarray = values[finite]
    with canvas(ax) as ax:
        y = np.where(finite, values, np.nan)
        ax.plot(x, y, "-", color=colour(0), linewidth=2, marker="." if show_points else None)
        for i in np.flatnonzero(~finite).tolist():  # each half-way to its neighbours
            left, right = x[max(i - 1, 0)], x[min(i + 1, len(x) - 1)]
            ax.axvspan((left + x[i]) / 2, (right + x[i]) / 2, color=MISSING, linewidth=0, zorder=1)
        ax.set(xlim=(x[0], x[-1]), ylabel=title(record, metric), xlabel=_along(record))
        if scale == "linear" or not log_where_wide(ax, "y", finite_values):
            ax.set_ylim(bottom=min(0.0, finite_values.min()))
        if vmax is not None:
            ax.set_ylim(top=vmax)
        labels, whole = [], dict[str, Any](clip_on=False)  # marks are often at the line's ends
        for name, mark in record.marks.items():
            at = float(numbers(mark).reshape(-1)[0])
            up = float(np.interp(at, x, y, left=np.nan, right=np.nan))
            if np.isfinite(up):
                ax.plot(
                    at, up, "o", color=INK, markeredgecolor="white", markersize=8, zorder=4, **whole
                )
            labels.append(Label(at, up if np.isfinite(up) else ax.get_ylim()[0], name, INK))
        text = caption(record, int((~finite).sum()), finite.size)
        words_below(ax, text, width=90)
        settle(ax)
        mark_labels(ax, labels, avoid=np.stack([x[finite], finite_values], axis=1))
    return ax


def _along(record: SurfaceResult) -> str:
    return str(record.about.get("labels", ["position along the line"])[0])
