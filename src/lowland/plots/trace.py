"""Traces of chains and their histograms.

arviz-plots draws traces too, but its release 0.8 does not import with matplotlib 3.11, and it draws
neither weighted draws nor on axes of the user's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.errors import ConfigError, DataError, LowlandError
from lowland.plots.overlays import letters_across, words_below
from lowland.plots.panels import panels
from lowland.plots.style import MUTED, PALETTE, canvas, colour, numbers
from lowland.records import Chain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 30  # of the histogram beside the trace
DOT = 60.0  # square points, the area of the draw with the largest weight


def trace(
    record: Chain, *, ax: Axes | None = None, coordinate: int | str | None = None, bins: int = BINS
) -> Axes:
    """Draws one coordinate of each chain against the draw's number, and its histogram beside it.

    Chains that agree overlap in both panels. The caption has the rank-normalised split R-hat and
    the effective sample sizes of the coordinate (Vehtari et al. 2021). Weighted draws have no
    order: they are dots with areas proportional to their weights.

    Args:
        coordinate: its number, or "log_density"; None: the coordinate with the largest R-hat.
        bins: number of bins of the histograms.

    Raises:
        ConfigError: no such coordinate. DataError: no finite values.

    >>> import torch
    >>> draws = torch.randn(4, 100, 2, generator=torch.Generator().manual_seed(0))
    >>> record = Chain(draws, -draws.square().sum(2) / 2, sampler="ess")
    >>> trace(record, coordinate=1).get_ylabel()
    'coordinate 1'
    """
    values, name = values_of(record, coordinate)
    finite = values[np.isfinite(values)]
    if not len(finite):
        raise DataError(f"{name}: no finite values; sample again, from where the density is.")
    chains, draws = values.shape
    with canvas(ax, size=(7.6, 3.8), room=(0.08, 0)) as ax:
        left, right = panels(ax, [(0, 0, 0.8, 1), (0.83, 0, 0.17, 1)], sharey=ax)
        right.tick_params(labelleft=False, color=MUTED)
        right.set_xticks([])
        edges = _edges(finite, bins)
        many_chains = chains > len(PALETTE)
        number = np.arange(1, draws + 1)
        for i, (line, weights) in enumerate(zip(values, numbers(record.weights), strict=True)):
            ink, label = (
                colour(i),
                f"chain {i + 1}" if chains > 1 and not many_chains else f"_chain {i}",
            )
            is_finite = np.isfinite(line)
            if record.log_weights is None:
                line = np.where(is_finite, line, np.nan)
                width: dict[str, Any] = {
                    "linewidth": 0.6 if many_chains else 0.9,
                    "alpha": 0.6 if many_chains else 0.8,
                }
                left.plot(number, line, color=ink, label=label, **width)
            else:
                area = DOT * weights[is_finite] / max(numbers(record.weights).max(), 1e-300)
                dot: dict[str, Any] = {"linewidth": 0, "alpha": 0.6}
                left.scatter(
                    number[is_finite], line[is_finite], area, color=ink, label=label, **dot
                )
            if is_finite.any():
                counts, _ = np.histogram(line[is_finite], edges, weights=weights[is_finite])
                right.stairs(counts, edges, orientation="horizontal", color=ink, linewidth=1.1)
        left.margins(x=0.01)
        right.set_xlim(left=0)
        left.set(xlabel="draw", ylabel=name)
        words_below(left, _caption(record, coordinate, name), width=letters_across(ax))
    return ax


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Edges of the histogram's bins: one bin a value for the few values of a grid."""
    unique = np.unique(values)
    if not 1 < len(unique) <= 2 * bins:
        return np.histogram_bin_edges(values, bins)
    between = (unique[1:] + unique[:-1]) / 2
    first, last = 2 * unique[0] - between[0], 2 * unique[-1] - between[-1]
    return np.concatenate([[first], between, [last]])


def values_of(record: Chain, coordinate: int | str | None) -> tuple[np.ndarray, str]:
    """Values (chains, S) and their name; None: the coordinate with the largest R-hat."""
    k = record.coords.shape[-1]
    if coordinate == "log_density":
        return numbers(record.log_density), "log density (nats)"
    if coordinate is None:
        coordinate = _worst(record)
    if isinstance(coordinate, bool | str) or not 0 <= coordinate < k:
        raise ConfigError(
            f"coordinate: expected 0 to {k - 1}, 'log_density' or None, got {coordinate!r}."
        )
    return numbers(record.coords[..., coordinate]), f"coordinate {coordinate}"


def _worst(record: Chain) -> int:
    """The coordinate of the largest R-hat, or of the fewest effective samples for one chain."""
    try:
        for values in (numbers(record.rhat), -numbers(record.ess)):
            if np.isfinite(values).any():
                return int(np.nanargmax(np.where(np.isfinite(values), values, np.nan)))
    except LowlandError:  # arviz-stats is not in the extra `plots`: the caption has the message
        pass
    return 0


def _caption(record: Chain, coordinate: int | str | None, name: str) -> str:
    """The diagnostics of the coordinate."""
    selected = _worst(record) if coordinate is None else coordinate
    values = record.log_density if selected == "log_density" else record.coords[..., int(selected)]
    alone = replace(record, coords=values[..., None])  # the same diagnostics for the log density
    parts = []
    try:
        rhat, bulk, tail = (float(v[0]) for v in (alone.rhat, alone.ess, alone.ess_tail))
        parts += [f"R-hat {rhat:.3f}"] if np.isfinite(rhat) else []
        total = record.log_density.numel()
        if record.log_weights is not None:
            parts.append(f"weighted draws, worth {bulk:,.0f} of {total:,}")
        elif np.isfinite(bulk):
            parts.append(f"effective samples {bulk:,.0f} of {total:,} (tails {tail:,.0f})")
        else:
            parts.append("effective samples unknown: too few draws, or constant chains")
    except LowlandError as error:
        parts.append(str(error).split(":")[0])
    if coordinate is None and record.coords.shape[-1] > 1 and record.log_weights is None:
        parts[0] = f"{name}, the worst of {record.coords.shape[-1]}: {parts[0]}"
    parts.append(f"{record.coords.shape[0]} chains" if record.coords.shape[0] > 1 else "1 chain")
    parts.append(f"sampler {record.sampler}, temperature {record.temperature:g}")
    return "; ".join(parts)
