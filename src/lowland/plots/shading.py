"""Bands of colour for the values of a surface."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lowland.errors import ConfigError, DataError

SCALES = ("classic", "log", "linear")
BANDS = 7
#: the end of the scale and alpha, of the classic planes: nats, and percent
CLASSIC = {"loss": (5.0, -5.0), "nll": (5.0, -5.0), "error": (40.0, -1.0)}
PERCEPTUAL = "YlGnBu_r"  # valleys deep blue, heights pale: lightness grows all the way


class Shading(NamedTuple):
    """Values to bands: `shade` is k at level k and grows between levels and beyond the last.

    Attributes:
        levels: (bands + 1,), the bands' edges, in the values' units.
        shade: values to real numbers; those in [k, k + 1) are of band k, from `bands` on of "over".
        colours: (bands + 1, 4), of the bands, and of what is over the last level.
        over: whether anything is.
    """

    levels: np.ndarray
    shade: Callable[[np.ndarray], np.ndarray]
    colours: np.ndarray
    over: bool

    @property
    def bands(self) -> int:
        return len(self.levels) - 1

    def labels(self) -> list[str]:
        """The levels in as few digits as tell them apart."""
        for digits in range(2, 8):
            texts = [f"{level:.{digits}g}" for level in self.levels]
            if len(set(texts)) == len(texts):
                break
        return texts


def percent(figure: str) -> bool:
    """Whether a figure is a share of the rows, which pictures give in percent."""
    return figure == "error" or figure.endswith("_error")


def shading(
    values: np.ndarray,
    figure: str,
    *,
    scale: str = "classic",
    vmax: float | None = None,
    alpha: float | None = None,
    bands: int = BANDS,
    cmap: str = PERCEPTUAL,
) -> Shading:
    r"""Levels and colours for values, in percent where the figure is an error.

    With m and M the extremes of min(v, vmax), level k of "classic" is
    \(m + \exp(\alpha + k \gamma)\), \(\gamma = (\ln(M - m) - \alpha) / N\), but for the first,
    which is m: Garipov et al. (2018) and Izmailov et al. (2018) drew their planes so. "log" has
    equal ratios, "linear" equal steps from m to M.

    >>> plane = shading(np.array([1.0, 2.0, 9.0]), "loss", bands=2)
    >>> plane.levels.round(3), plane.over, plane.shade(np.array([1.0, 5.0])).round(3)
    (array([1.   , 1.164, 5.   ]), True, array([0., 2.]))
    """
    import matplotlib

    if scale not in SCALES:
        raise ConfigError(f"scale: expected one of {', '.join(SCALES)}, got {scale!r}.")
    if bands < 1:
        raise ConfigError(f"bands: expected at least 1, got {bands}.")
    finite = values[np.isfinite(values)]
    if not len(finite):
        raise DataError(f"{figure}: all values are NaN or infinite; scan closer to the networks.")
    kind = "error" if percent(figure) else figure.rpartition("_")[2]
    usual, usual_alpha = CLASSIC.get(kind, (math.inf, None))
    least = float(finite.min())
    if vmax is None:
        vmax = usual if usual > least else math.inf
    elif not vmax > least:
        raise ConfigError(f"vmax: expected more than the least value, {least:.4g}, got {vmax:g}.")
    most = float(np.minimum(finite, vmax).max())
    width = most - least
    if not width > 1e-12 * max(abs(least), 1.0):  # a flat surface: one colour
        width = max(abs(least), 1.0) * 1e-6
    if scale == "classic":
        alpha = usual_alpha if alpha is None else alpha
        # a first step that is no smaller than the whole leaves no room for others
        fits = math.log(width) - 0.5
        alpha = fits - 5.5 if alpha is None or alpha > fits else alpha
    levels, forward = _scale(scale, least, width, bands, alpha)
    low, high = forward(np.array([levels[0], levels[-1]]))

    def shade(values: np.ndarray) -> np.ndarray:
        found: np.ndarray = bands * (forward(values) - low) / (high - low)
        return found

    colours = matplotlib.colormaps[cmap](np.linspace(0, 1, bands + 1))
    return Shading(levels, shade, colours, bool((finite > vmax).any()))


def _scale(
    scale: str, least: float, width: float, bands: int, alpha: float | None
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Levels, and the increasing function that makes them evenly spaced."""
    steps = np.arange(bands + 1)
    if scale == "linear":
        return least + width * steps / bands, np.asarray
    if scale == "log":
        if least <= 0:
            raise ConfigError(
                f"scale: 'log' needs positive values, the least is {least:g}; take 'classic'."
            )
        return least * (1 + width / least) ** (steps / bands), np.log
    assert alpha is not None
    gamma = (math.log(width) - alpha) / bands
    levels = least + np.exp(alpha + gamma * steps)
    levels[[0, -1]] = least, least + width
    return levels, lambda v: np.log(np.maximum(v - least, math.exp(alpha)))
