"""The classic colours of loss planes: logarithmic above the lowest value, cut off at the top."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

BANDS = 7
_SPAN = 6.6  # e-folds of a scale that nobody has given: those of the classic one of the loss

#: metric -> (vmax, alpha) of Garipov et al. 2018, whose error is in per cent and ours a fraction
CLASSIC: dict[str, tuple[float, float]] = {
    "loss": (5.0, -5.0),
    "nll": (5.0, -5.0),
    "error": (0.4, -1.0 + math.log(0.01)),
}


def classic_of(metric: str) -> tuple[float, float] | None:
    """(vmax, alpha) of a metric by the words of its name, such as `test_error`; None: it has none.

    >>> classic_of("nll_together"), classic_of("brier")
    ((5.0, -5.0), None)
    """
    return next((CLASSIC[word] for word in metric.split("_") if word in CLASSIC), None)


def classic_levels(
    low: float, high: float, alpha: float | None = None, n: int = BANDS
) -> np.ndarray:
    r"""Edges of n bands of colour: \(m + e^{\alpha + k \gamma}\), k = 0..n, (n + 1,).

    With \(\gamma = (\ln(M - m) - \alpha) / n\) (Garipov et al. 2018); the lowest band begins at m
    itself. m and M are the extremes of what is drawn, after it was cut off at vmax.

    Args:
        low, high: m and M. alpha: log of the first band's width; None, or one that is too wide for
            M - m: 6.6 below its logarithm.

    >>> classic_levels(1.0, 1.0 + np.e**2, alpha=0.0, n=2).round(3)
    array([1.   , 3.718, 8.389])
    """
    if not high > low:
        return np.array([low, high], dtype=float)
    alpha = _alpha(low, high, alpha)
    steps = np.linspace(alpha, math.log(high - low), n + 1)
    return np.concatenate([[low], low + np.exp(steps[1:-1]), [high]])


def classic_shade(
    values: Any,
    *,
    vmax: float | None = None,
    alpha: float | None = None,
    low: float | None = None,
    high: float | None = None,
) -> np.ndarray:
    r"""Colour in [0, 1] of each value c: \((\ln(c - m) - \alpha) / (\ln(M - m) - \alpha)\).

    The bands of `classic_levels` are equal steps of it. Infinity, and all that is above vmax, is
    1; NaN stays.

    Args:
        low, high: m and M; None: the extremes of the finite values up to vmax.

    >>> classic_shade([1.0, 1.0 + np.e, 1.0 + np.e**2, np.inf], alpha=0.0)
    array([0. , 0.5, 1. , 1. ])
    """
    values = np.asarray(values, dtype=float)
    top = math.inf if vmax is None else vmax
    finite = np.minimum(values[np.isfinite(values)], top)
    low = float(finite.min(initial=math.inf)) if low is None else low
    high = float(finite.max(initial=-math.inf)) if high is None else min(high, top)
    if not high > low:  # flat, or nothing to see
        return np.where(np.isnan(values), values, np.where(values > high, 1.0, 0.0))
    alpha = _alpha(low, high, alpha)
    with np.errstate(invalid="ignore"):
        logs = np.log(np.clip(values - low, math.exp(alpha), high - low))
    return np.asarray((logs - alpha) / (math.log(high - low) - alpha))


def _alpha(low: float, high: float, alpha: float | None) -> float:
    most = math.log(high - low)
    return alpha if alpha is not None and alpha < most else most - _SPAN
