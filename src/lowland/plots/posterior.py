"""The log posterior over two coordinates of a subspace, and what samplers make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lowland import checks
from lowland.errors import ConfigError, DataError
from lowland.plots.labels import mark_labels
from lowland.plots.overlays import (
    caption,
    colour_bar,
    level_ticks,
    overlay,
    settle,
    words_below,
)
from lowland.plots.shading import PERCEPTUAL, Shading
from lowland.plots.style import INK, by_label, canvas, colours_of, numbers
from lowland.plots.surface import (
    axis_labels,
    contoured,
    inner_edges,
    masked,
    metric_values,
    size_of,
)
from lowland.records import Chain, SurfaceResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEAR = (0.0, 0.5, 2.0, 4.5, 8.0, 12.5)  # nats below the maximum: 0 to 5 sd of a Gaussian
LAST = 12.5 * 2**7  # after 5 sd each band is twice as deep
DOTS = 400  # as many as remain distinguishable
#: of dots, by record: seen on deep blue and on pale yellow
FACES = (("#ffffff", "o"), ("#E69F00", "s"), ("#CC79A7", "^"), ("#56B4E9", "D"))

Gaussians = Mapping[str, tuple[Tensor, Tensor]]


def posterior(
    record: SurfaceResult,
    *,
    ax: Axes | None = None,
    metric: str = "log_density",
    temperature: float = 1.0,
    chain: Chain | Mapping[str, Chain] | None = None,
    gaussians: Gaussians | None = None,
    path: Tensor | Mapping[str, Tensor] | None = None,
    coordinates: tuple[int, int] | None = None,
    sigmas: float = 3.0,
    dots: int = DOTS,
    cmap: str = PERCEPTUAL,
) -> Axes:
    r"""Draws a log density in bands below its maximum, with samples, Gaussians and a path on it.

    Bands end at \(\tfrac12, 2, \tfrac92, 8, \tfrac{25}2\) nats below the maximum of the grid, which
    are 1 to 5 standard deviations of a Gaussian, and then each is twice as deep. Izmailov et al.
    (2019) draw their subspaces so.

    Args:
        metric: which of the record's is the log density, in nats.
        temperature: what to divide it by, where that was not done: a `Chain`'s was.
        chain: draws to show as dots, or several by name. Draws with weights are resampled, and a
            dot's area is as often as its draw came.
        gaussians: {name: (mean (k,), covariance (k, k))}, drawn as ellipses.
        path: iterates (K, 2), or {name: (K, 2)}, in the plane's coordinates.
        coordinates: the two of k coordinates of the plane; None: `about["coordinates"]` of the
            record, else the first two. If k > 2, dots and ellipses are marginal, bands a slice.
        sigmas: of the ellipses, in standard deviations. dots: how many at most, of each record.
        cmap: any of matplotlib's maps; its first colour is where the density is highest.

    NaN is grey; where the density is zero is the last band.

    Raises:
        ConfigError: a record along a line, coordinates that a chain or Gaussian lacks.
        DataError: no finite density.

    >>> x = torch.linspace(-4, 4, 41)
    >>> density = -(x**2 + x[:, None] ** 2) / 2
    >>> record = SurfaceResult(x, x, {"log_density": density}, about={"labels": ["z0", "z1"]})
    >>> axes = posterior(record, gaussians={"VI": (torch.zeros(2), torch.eye(2))})
    >>> [text.get_text() for text in axes.get_legend().get_texts()]
    ['VI, 3 sd']
    """
    values = metric_values(record, metric)
    if record.y is None:
        raise ConfigError("posterior: expected a plane, got a line; draw it with record.plot().")
    temperature = checks.number("temperature", temperature, above=0)
    sigmas = checks.number("sigmas", sigmas, above=0)
    i, j = _pair(record, coordinates)
    shaded, drop = _shading(values / temperature, metric, cmap)
    shades = masked(drop, shaded)
    chains = {} if chain is None else by_label(chain)
    dots_by_name = {
        name: _dots(name, chain_record, (i, j), dots) for name, chain_record in chains.items()
    }
    curves, paths = dict(record.curves), dict(record.paths)
    for name, (mean, covariance) in (gaussians or {}).items():
        _require(name, len(mean), (i, j))
        curves[f"{name}, {sigmas:g} sd"] = _ellipse(
            mean[[i, j]], covariance[[i, j]][:, [i, j]], sigmas
        )
    for name, steps in ({"SGD": path} if isinstance(path, Tensor) else path or {}).items():
        paths[name] = {"coords": steps}
    with_overlays = replace(record, curves=curves, paths=paths)
    x, y = numbers(record.x), numbers(record.y)
    orthonormal, ratio = record.about.get("orthonormal", True), np.ptp(x) / np.ptp(y)
    true = orthonormal and 0.2 < ratio < 5
    wide, high = size_of(ratio if true else 1.0)
    lines = bool(dots_by_name) + bool(curves or paths)
    with canvas(ax, size=(wide + 2.2, high + 1.0 + 0.2 * lines), room=(0.08, 0.16)) as ax:
        ax.grid(False)
        ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), **_labels(record, i, j))
        ax.set_aspect("equal" if true else "auto")
        contoured(ax, x, y, shades, shaded, zorder=1)
        inner = inner_edges(shades, shaded.bands)
        if len(inner):
            ax.contour(x, y, shades, inner, colors="white", linewidths=0.7, alpha=0.7, zorder=2)
        for n, (name, (xy, area)) in enumerate(dots_by_name.items()):
            face, marker = FACES[n % len(FACES)]
            rim: dict[str, Any] = {"edgecolors": INK, "linewidths": 0.4, "zorder": 4}
            label = name or f"{chains[name].sampler} samples"
            ax.scatter(xy[:, 0], xy[:, 1], area, color=face, marker=marker, label=label, **rim)
        labels, points = overlay(ax, with_overlays)
        narrow = 0.05 * np.clip(high / wide, 0.7, 4)
        place = (1 + narrow / 2, 0, narrow, 1)
        comma = ", " if high > 3 else ",\n"  # as long as the bar, or nearly
        name = f"{record.split} {metric.replace('_', ' ')}{comma}nats below its maximum".strip()
        bar = colour_bar(ax, shaded, name, place=place)
        words_below(
            ax, _words(record, shades, [*chains.values()], dots), width=int(15 * (wide + 1))
        )
        settle(ax)
        level_ticks(bar, shaded)
        mark_labels(
            ax, labels, avoid=np.concatenate([points, *(xy for xy, _ in dots_by_name.values())])
        )
    return ax


class _Drops(Shading):
    """Bands of nats below the maximum, whose ends are round numbers."""

    def labels(self) -> list[str]:
        return [f"{level:g}" for level in self.levels]


def _pair(record: SurfaceResult, coordinates: Sequence[int] | None) -> tuple[int, int]:
    """The two coordinates of the plane."""
    pair = record.about.get("coordinates", (0, 1)) if coordinates is None else coordinates
    i, j = (int(c) for c in pair)
    if i == j or min(i, j) < 0:
        raise ConfigError(f"coordinates: expected two different ones from 0 on, got {i} and {j}.")
    return i, j


def _require(name: str, k: int, pair: tuple[int, int]) -> None:
    if max(pair) >= k:
        raise ConfigError(
            f"{name or 'chain'}: the plane has coordinates {pair[0]} and {pair[1]}, the chain or "
            f"Gaussian has {k}; pass coordinates=(i, j)."
        )


def _shading(values: np.ndarray, metric: str, cmap: str) -> tuple[Shading, np.ndarray]:
    """Bands, and how far below the maximum the values are."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        raise DataError(f"{metric}: no finite values; scan where the density is.")
    values = np.where(np.isposinf(values), np.nan, values)
    drop = finite.max() - values  # inf where the density is zero
    deepest = finite.max() - finite.min()
    levels = list(NEAR[: max(2, 1 + int(np.searchsorted(NEAR, deepest)))])
    while levels[-1] < min(deepest, LAST) and len(levels) >= len(NEAR):
        levels.append(2 * levels[-1])
    edges = np.array(levels)
    over = bool((drop > edges[-1]).any())
    beyond = np.where(np.isposinf(drop), max(deepest, 2 * edges[-1]), drop)

    def shade(drops: np.ndarray) -> np.ndarray:
        # linear in the standard deviation, in which a Gaussian's bands are as wide as one another
        inside = np.interp(np.sqrt(drops), np.sqrt(edges), np.arange(len(edges)))
        return np.asarray(inside + np.log2(np.maximum(drops / edges[-1], 1)))

    return _Drops(edges, shade, colours_of(cmap, len(edges)), over), beyond


def _ellipse(mean: Tensor, covariance: Tensor, sigmas: float) -> Tensor:  # -> (q, 2)
    """The points that far from the mean of a Gaussian, which may be flat in a direction."""
    spread, axes = torch.linalg.eigh(covariance.double())
    turn = torch.linspace(0, 2 * torch.pi, 181, dtype=torch.float64)
    circle = torch.stack([turn.cos(), turn.sin()], 1)
    outline: Tensor = mean.double() + sigmas * (circle * spread.clamp_min(0).sqrt()) @ axes.T
    return outline


def _dots(
    name: str, chain: Chain, pair: tuple[int, int], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws (q, 2), evenly taken from all chains, and the dots' areas (q,)."""
    _require(name, chain.coords.shape[-1], pair)
    count = checks.whole("dots", count, least=1)
    xy = numbers(chain.draws[:, list(pair)])
    base = 10.0
    if chain.log_weights is None:
        keep = np.unique(np.linspace(0, len(xy) - 1, min(count, len(xy))).round().astype(int))
        return xy[keep], np.full(len(keep), base)
    # as if sampled, at even steps of the total weight
    total = np.cumsum(numbers(chain.weights).ravel())
    at = np.searchsorted(total, (np.arange(count) + 0.5) / count * total[-1])
    keep, times = np.unique(np.minimum(at, len(xy) - 1), return_counts=True)
    return xy[keep], base * times / np.median(times)


def _labels(record: SurfaceResult, i: int, j: int) -> dict[str, str]:
    """Of the axes: the record's, else the coordinates' numbers."""
    if "labels" in record.about or record.explained_variance_ratio is not None:
        return axis_labels(record)
    return {"xlabel": f"coordinate {i}", "ylabel": f"coordinate {j}"}


def _words(
    record: SurfaceResult, shades: np.ma.MaskedArray, chains: Sequence[Chain], dots: int
) -> str:
    """How the density was computed, and which draws are visible."""
    parts = [caption(record, int(shades.mask.sum()), shades.size)]
    if any(len(chain.draws) > dots for chain in chains):
        parts.append(f"{dots:,} draws{' each' if len(chains) > 1 else ''}")
    if any(chain.coords.shape[-1] > 2 for chain in chains):
        parts.append("bands are a slice, dots a projection")
    return "; ".join(part for part in parts if part)
