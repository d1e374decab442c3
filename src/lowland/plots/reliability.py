"""Reliability diagrams: accuracy against confidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.errors import ConfigError, DataError
from lowland.plots.scales import NEAREST, confidence_ticks
from lowland.plots.style import (
    MUTED,
    SMALL,
    by_label,
    canvas,
    colour,
    dashes,
    merge_equal,
    numbers,
)
from lowland.records import Predictive, Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Reliable = Reliability | Predictive
STYLES = ("diagram", "gap")


def reliability(
    record: Reliable | Mapping[str, Reliable],
    *,
    ax: Axes | None = None,
    style: str = "diagram",
    ece: bool | Mapping[str, float] = True,
) -> Axes:
    """Draws accuracy against confidence, a point a bin; a dict of records gives a line a label, and
    equal ones one line.

    `style="diagram"`: accuracy over confidence with the diagonal of perfect calibration (Guo et
    al. 2017); for one record alone also the gaps as bars, and the examples in each bin of equal
    width as a faint histogram of free scale; bins of equal count have none. `style="gap"`:
    confidence minus accuracy, below zero where the model is underconfident, over
    -log(1 - confidence), which spreads out high confidences (Maddox et al. 2019).
    All are fractions. The area of a point grows with the examples in its bin; empty bins have none.
    `ece` adds the error over these bins to the labels; a dict by label adds its numbers.

    >>> import torch
    >>> half = torch.tensor([0.5, torch.nan, 0.9])
    >>> calibrated = Reliability(half, half, torch.tensor([10, 0, 20]))
    >>> reliability(calibrated).get_legend().get_texts()[0].get_text()
    'ECE 0.000'
    """
    if style not in STYLES:
        raise ConfigError(f"style: expected one of {', '.join(STYLES)}, got {style!r}.")
    records = {name: _reliability(result) for name, result in by_label(record).items()}
    errors = ece if isinstance(ece, Mapping) else {name: r.ece for name, r in records.items()}
    curves = {name: (*_bins(result), errors[name]) for name, result in records.items()}
    confidences = []
    gap = style == "gap"
    with canvas(ax, size=(6.4, 4.0) if gap else (4.8, 4.6)) as ax:
        for i, (name, curve) in enumerate(merge_equal(curves).items()):
            confidence, accuracy, count, number = curve
            x = np.minimum(confidence, NEAREST) if gap else confidence
            y = confidence - accuracy if gap else accuracy
            error = f"ECE {number:.3f}"
            text = f"{name} ({error})" if name and ece else name or error
            confidences.append(x)
            ink = colour(i)
            ax.plot(x, y, dashes(i), color=ink, linewidth=2, label=text, zorder=3)
            area = 6 + 54 * count / count.max(initial=1)
            ax.scatter(x, y, area, color=ink, zorder=3, clip_on=False)
        if gap:
            confidence_ticks(ax, np.concatenate(confidences))
            ax.axhline(0, color=MUTED, linewidth=1, linestyle="--", zorder=2)
            ax.set(xlabel="confidence, spaced as −log(1 − confidence)")
            ax.set(ylabel="confidence − accuracy")
            _sides(ax)
        else:
            if len(records) == 1:
                _bars(ax, *records.values())
            ax.axline((0, 0), slope=1, color=MUTED, linewidth=1, linestyle="--", zorder=2)
            ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
            ax.set_aspect("equal")
            _note(ax, "underconfident", 0.025, 0.66)  # below the legend
            _note(ax, "overconfident", 0.985, 0.28, ha="right")  # above the histogram
        ax.legend(loc="best" if gap else "upper left")
    return ax


def _reliability(record: Reliable) -> Reliability:
    if isinstance(record, Reliability):
        return record
    if record.reliability is None:
        raise DataError("the record holds no reliability; predict a classification with targets.")
    return Reliability(**record.reliability)


def _bins(record: Reliability) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, accuracy and count of the bins with examples."""
    bins = np.stack([numbers(x) for x in (record.confidence, record.accuracy, record.count)])
    confidence, accuracy, count = bins[:, np.isfinite(bins).all(0)]
    return confidence, accuracy, count


def _equal_width(record: Reliability) -> bool:
    """Whether the confidence of each bin that holds examples lies in the bin of equal width."""
    confidence = numbers(record.confidence)
    edges = np.linspace(0, 1, len(confidence) + 1)
    slack = 1e-6  # confidences are often float32
    inside = (confidence >= edges[:-1] - slack) & (confidence <= edges[1:] + slack)
    return bool((inside | ~np.isfinite(confidence)).all())


def _sides(ax: Axes) -> None:
    """Which side of zero is which, with room for the words on both."""
    low, high = ax.get_ylim()
    room = 0.12 * max(high - low, 1e-3)
    ax.set_ylim(min(low, -room), max(high, room))
    low, high = ax.get_ylim()
    zero = -low / (high - low)
    _note(ax, "overconfident", 0.985, zero + 0.02, ha="right", va="bottom")
    _note(ax, "underconfident", 0.985, zero - 0.02, ha="right", va="top")


def _note(ax: Axes, words: str, x: float, y: float, **options: Any) -> None:
    ax.text(x, y, words, transform=ax.transAxes, color=MUTED, fontsize=SMALL, **options)


def _bars(ax: Axes, record: Reliability) -> None:
    """From the diagonal to the accuracy at each bin's confidence, and a histogram at the bottom."""
    confidence, accuracy, _ = _bins(record)
    count = numbers(record.count)
    even = _equal_width(record)
    width = 1 / len(count) if even else 0.02
    gaps = accuracy - confidence
    ax.bar(confidence, gaps, width / 2, confidence, color=colour(1), alpha=0.35, label="gap")
    if not even:  # as many examples in each
        return
    left = width * np.arange(len(count))
    height = count / max(4 * count.max(), 1)
    ax.bar(left, height, width, align="edge", color="#dedede", label="examples", zorder=1)
