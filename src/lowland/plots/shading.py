"""Bands of colour for the values of a surface."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lowland import checks
from lowland.errors import ConfigError, DataError
from lowland.plots.style import colours_of
from lowland.records.shades import BANDS, classic_levels, classic_of, classic_shade

SCALES = ("classic", "log", "linear")
PERCEPTUAL = "YlGnBu_r"  # valleys deep blue, heights pale: lightness grows all the way
PALE = 0.65  # of a full colour
SPAN = 6.6  # e-folds of a classic scale without an alpha: those of the loss
Shade = Callable[[np.ndarray], np.ndarray]


class Shading(NamedTuple):
    """Values to bands: `shade` is k at level k and grows between levels and beyond the last.

    Attributes:
        levels: (bands + 1,), the bands' edges, in the values' units.
        shade: values to real numbers; those in [k, k + 1) are of band k, from `bands` on of "over".
        colours: (bands + 1, 4), of the bands, and of what is over the last level.
        over: whether anything is.
    """

    levels: np.ndarray
    shade: Shade
    colours: np.ndarray
    over: bool

    @property
    def bands(self) -> int:
        return len(self.levels) - 1

    def labels(self) -> list[str]:
        """The levels, with the fewest digits that distinguish them."""
        for digits in range(2, 8):
            texts = [f"{level:.{digits}g}" for level in self.levels]
            if len(set(texts)) == len(texts):
                break
        return texts


def percent(metric: str) -> bool:
    """Whether a metric is a share of the examples, which pictures have in percent."""
    return "error" in metric.split("_")


def require_scale(scale: str) -> None:
    """Raises `ConfigError` for a name that is none of the scales'."""
    if scale not in SCALES:
        raise ConfigError(f"scale: expected one of {', '.join(SCALES)}, got {scale!r}.")


def shading(
    values: np.ndarray,
    metric: str,
    *,
    scale: str = "classic",
    vmax: float | None = None,
    alpha: float | None = None,
    bands: int = BANDS,
    cmap: str = PERCEPTUAL,
) -> Shading:
    r"""Levels and colours for values, in percent where the metric is an error.

    With m and M the extremes of min(v, vmax), level k of "classic" is
    \(m + \exp(\alpha + k \gamma)\), \(\gamma = (\ln(M - m) - \alpha) / N\), but for the first,
    which is m: Garipov et al. (2018) and Izmailov et al. (2018) drew their planes so. "log" has
    equal ratios, "linear" equal steps from m to M.

    >>> plane = shading(np.array([1.0, 2.0, 9.0]), "loss", bands=2)
    >>> plane.levels.round(3), plane.over, plane.shade(np.array([1.0, 5.0])).round(3)
    (array([1.   , 1.164, 5.   ]), True, array([0., 2.]))
    """
    require_scale(scale)
    bands = checks.whole("bands", bands, least=1)
    finite = values[np.isfinite(values)]
    if not len(finite):
        raise DataError(f"{metric}: all values are NaN or infinite; scan closer to the networks.")
    classic = classic_of(metric)
    unit = 100.0 if percent(metric) else 1.0
    low = float(finite.min())
    if vmax is None:
        vmax = classic[0] * unit if classic and classic[0] * unit > low else math.inf
    elif not vmax > low:
        raise ConfigError(f"vmax: expected more than the least value, {low:.4g}, got {vmax:g}.")
    high = float(np.minimum(finite, vmax).max())
    if not high - low > 1e-12 * abs(low):  # a flat surface: one colour, of a scale of width 1
        high = low + max(1.0, 1e-6 * abs(low))
    if scale == "classic":
        alpha = classic[1] + math.log(unit) if classic and alpha is None else alpha
        levels, shade = _classic(low, high, alpha, bands)
    else:
        levels, shade = _even(scale, low, high, bands)
    colours = colours_of(cmap, bands + 1)
    if cmap.startswith("jet"):  # as the papers print it
        colours = 1 - PALE * (1 - colours)
        colours[:, 3] = 1
    return Shading(levels, shade, colours, bool((finite > vmax).any()))


def _classic(low: float, high: float, alpha: float | None, bands: int) -> tuple[np.ndarray, Shade]:
    """The papers' levels, and their shade with the same logarithm continued above the last."""
    width = math.log(high - low)
    if alpha is None or alpha >= width:  # a first step wider than all there is
        alpha = width - SPAN

    def shade(values: np.ndarray) -> np.ndarray:
        beyond = np.log(np.maximum(values - low, high - low)) - width
        below = classic_shade(values, low=low, high=high, alpha=alpha)
        return np.asarray(bands * (below + beyond / (width - alpha)))

    return classic_levels(low, high, alpha, bands), shade


def _even(scale: str, low: float, high: float, bands: int) -> tuple[np.ndarray, Shade]:
    """Levels in equal ratios or steps."""
    if scale == "log" and low <= 0:
        raise ConfigError(
            f"scale: 'log' needs positive values, the least is {low:g}; take 'classic'."
        )
    steps = np.arange(bands + 1) / bands
    if scale == "linear":
        return low + (high - low) * steps, lambda v: bands * (v - low) / (high - low)
    return low * (high / low) ** steps, lambda v: bands * np.log(v / low) / math.log(high / low)
