"""The density of a curvature matrix's eigenvalues, with its leading eigenvalues as spikes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lowland import checks
from lowland.errors import DataError
from lowland.plots.overlays import letters_across, words_below
from lowland.plots.style import canvas, colour, numbers
from lowland.records import SpectrumResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DECADES = 1.5  # below the density of one eigenvalue


def spectrum(record: SpectrumResult, *, ax: Axes | None = None, width: float | None = None) -> Axes:
    """Draws the density of eigenvalues on a logarithmic axis, with its band over probes.

    Leading eigenvalues are spikes as high as the density of a single eigenvalue.

    Args:
        width: of the Gaussian that each eigenvalue is drawn as, see `SpectrumResult.smoothed`.

    Raises:
        DataError: a record without eigenvalues and without probes.

    >>> import torch
    >>> record = SpectrumResult(
    ...     "ggn",
    ...     4,
    ...     torch.tensor([5.0]),
    ...     torch.zeros(1),
    ...     torch.tensor([[1.0, 2.0]]),
    ...     torch.tensor([[0.5, 0.5]]),
    ...     float("inf"),
    ...     0.1,
    ...     0.0,
    ...     8,
    ... )
    >>> spectrum(record).get_yscale()
    'log'
    """
    if not record.probes and not len(record.eigenvalues):
        raise DataError("the record has no eigenvalues and no density; compute it with probes=10.")
    if width is not None:
        width = checks.number("width", width, above=0)
    density = record.smoothed(width=width)
    x, mean, low, high = (numbers(values) for values in density[:4])
    one = 1 / (record.size * density.width * np.sqrt(2 * np.pi))
    floor = one / 10**_DECADES
    with canvas(ax, room=(0.15, 0)) as ax:
        ax.set_yscale("log")
        if record.probes:
            ax.fill_between(x, low.clip(floor), high.clip(floor), color=colour(0), alpha=0.25, lw=0)
            ax.plot(x, mean.clip(floor), color=colour(0), linewidth=1.6, label="density")
        leading = numbers(record.eigenvalues)
        if len(leading):
            label = f"{len(leading)} leading eigenvalue{'s' * (len(leading) > 1)}"
            ax.vlines(leading, floor, one, color=colour(1), linewidth=1.2, label=label)
        ax.set_ylim(floor, 3 * max(mean.max(), one))
        ax.set(xlabel="eigenvalue", ylabel="density")
        ax.legend(loc="upper right")
        words_below(ax, record.message, width=letters_across(ax))
    return ax
