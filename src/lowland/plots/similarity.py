"""Similarity of weight vectors, as a matrix of colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lowland.errors import ConfigError
from lowland.plots.style import INK, MUTED, SMALL, canvas, numbers
from lowland.records import SimilarityResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "cosine": "cosine of the weights",
    "distance": "distance of the weights",
    "disagreement": "predictions that differ (fraction)",
}
READ = 12  # vectors: numbers in the cells of more would be too small


def similarity(record: SimilarityResult, *, ax: Axes | None = None, metric: str = "cosine") -> Axes:
    """Draws a matrix: "cosine", "distance" or "disagreement", its values written into the cells.

    More than 12 vectors have a colour bar instead of the numbers. White is zero; colours end at ±1
    for cosines, at the largest value otherwise.

    >>> import torch
    >>> axes = similarity(SimilarityResult(torch.eye(2), 1 - torch.eye(2)))
    >>> [text.get_text() for text in axes.texts]
    ['1.00', '0.00', '0.00', '1.00']
    """
    matrices = {name: getattr(record, name) for name in TITLES if getattr(record, name) is not None}
    if metric not in matrices:
        raise ConfigError(f"metric: expected one of {', '.join(matrices)}, got {metric!r}.")
    values = numbers(matrices[metric])
    names = record.names or [str(i) for i in range(len(values))]
    label = TITLES[metric]
    return matrix(values, names, label=label, is_cosine=metric == "cosine", ax=ax)


def matrix(
    values: np.ndarray, names: list[str], *, label: str, is_cosine: bool, ax: Axes | None
) -> Axes:
    """Draws values (n, n) between things with these names as colours; see `similarity`."""
    n = len(values)
    side = min(max(3.4, 1.6 + 0.62 * n), 7.5)
    bar_width = 0.4 if n > READ else 0
    with canvas(ax, size=(side + 0.4 + bar_width, side)) as ax:
        ax.grid(False)
        if is_cosine:
            image = ax.imshow(values, cmap="RdBu_r", vmin=-1.0, vmax=1.0)
        else:
            top = float(np.nanmax(values, initial=0.0)) or 1.0
            image = ax.imshow(values, cmap="Blues", vmin=0.0, vmax=top)
        if n <= READ:
            _numbers(ax, values, image)
        else:
            bar = ax.figure.colorbar(image, cax=ax.inset_axes((1.03, 0, 0.04, 1)))
            bar.outline.set_visible(False)
            bar.ax.tick_params(color=MUTED, labelcolor=INK, labelsize=SMALL)
        ticks = range(0, n, -(-n // 16))
        ax.set_xticks(ticks, [names[i] for i in ticks])
        ax.set_yticks(ticks, [names[i] for i in ticks])
        if max(map(len, names)) > 6:
            ax.tick_params(axis="x", rotation=45)
            for tick in ax.get_xticklabels():
                tick.set(ha="right", rotation_mode="anchor")
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
        ax.set_xlabel(label)
    return ax


def _numbers(ax: Axes, values: np.ndarray, image: object) -> None:
    """Each value in its cell, in white where the cell is dark."""
    top = np.nanmax(np.abs(values), initial=0.0) or 1.0
    digits = int(np.clip(2 - np.floor(np.log10(top)), 0, 4))  # three of the largest value's
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = image.cmap(image.norm(value))  # type: ignore[attr-defined]
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.58
        ax.text(
            column,
            row,
            f"{round(value, digits) + 0.0:.{digits}f}",  # no minus before a zero
            ha="center",
            va="center",
            color="white" if dark else INK,
            fontsize=SMALL,
        )
