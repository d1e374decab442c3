"""How chains wander."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.errors import ConfigError, DataError, LowlandError
from lowland.plots.overlays import letters_across, make_room, words_below
from lowland.plots.panels import panels
from lowland.plots.style import FAINT, MUTED, PALETTE, canvas, colour, numbers
from lowland.records import Chain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 30  # of the histogram beside the trace
DOT = 60.0  # square points, of the heaviest draw


def trace(
    record: Chain, *, ax: Axes | None = None, coordinate: int | str | None = None, bins: int = BINS
) -> Axes:
    """Draws one coordinate of each chain against the draw's number, and its histogram beside it.

    Chains that agree lie on one another, in both panels. The words below give the rank-normalised
    split R-hat and the effective samples of what is drawn (Vehtari et al. 2021). Draws that have
    weights come in no order: they are dots, of an area that is as their weight.

    Args:
        coordinate: which; "log_density"; None: the coordinate whose chains agree least, by R-hat.
        bins: of the histograms.

    Raises:
        ConfigError: a coordinate that there is none of. DataError: no finite values.

    >>> import torch
    >>> draws = torch.randn(4, 100, 2, generator=torch.Generator().manual_seed(0))
    >>> record = Chain(draws, -draws.square().sum(2) / 2, sampler="ess")
    >>> trace(record, coordinate=1).get_ylabel()
    'coordinate 1'
    """
    values, name = values_of(record, coordinate)
    shown = values[np.isfinite(values)]
    if not len(shown):
        raise DataError(f"{name}: no finite values; sample again, from where the density is.")
    chains, draws = values.shape
    if ax is not None:
        make_room(ax, beside=0)
    with canvas(ax, size=(7.6, 3.8)) as ax:
        left, right = panels(ax, [(0, 0, 0.8, 1), (0.83, 0, 0.17, 1)], sharey=ax)
        right.grid(True, color=FAINT, linewidth=0.8)
        right.set_axisbelow(True)
        right.tick_params(labelleft=False, color=MUTED)
        right.set_xticks([])
        edges = _edges(shown, bins)
        many = chains > len(PALETTE)
        number = np.arange(1, draws + 1)
        for i, (line, weights) in enumerate(zip(values, numbers(record.weights), strict=True)):
            ink, label = colour(i), f"chain {i + 1}" if chains > 1 and not many else f"_chain {i}"
            there = np.isfinite(line)
            if record.log_weights is None:
                line = np.where(there, line, np.nan)
                width: dict[str, Any] = {
                    "linewidth": 0.6 if many else 0.9,
                    "alpha": 0.6 if many else 0.8,
                }
                left.plot(number, line, color=ink, label=label, **width)
            else:
                area = DOT * weights[there] / max(numbers(record.weights).max(), 1e-300)
                dot: dict[str, Any] = {"linewidth": 0, "alpha": 0.6}
                left.scatter(number[there], line[there], area, color=ink, label=label, **dot)
            if there.any():
                counts, _ = np.histogram(line[there], edges, weights=weights[there])
                right.stairs(counts, edges, orientation="horizontal", color=ink, linewidth=1.1)
        left.margins(x=0.01)
        right.set_xlim(left=0)
        left.set(xlabel="draw", ylabel=name)
        words_below(left, _told(record, coordinate, name), width=letters_across(ax))
    return ax


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Of the histogram: a bin a value for a grid's few, which equal bins would hold unevenly."""
    unique = np.unique(values)
    if not 1 < len(unique) <= 2 * bins:
        return np.histogram_bin_edges(values, bins)
    between = (unique[1:] + unique[:-1]) / 2
    first, last = 2 * unique[0] - between[0], 2 * unique[-1] - between[-1]
    return np.concatenate([[first], between, [last]])


def values_of(record: Chain, coordinate: int | str | None) -> tuple[np.ndarray, str]:
    """Values (chains, S) and their name. None: of the coordinate whose chains agree least."""
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
    except LowlandError:  # without arviz-stats, which is no part of `plots`: the words say so
        pass
    return 0


def _told(record: Chain, coordinate: int | str | None, name: str) -> str:
    """How far to trust what is drawn."""
    chosen = _worst(record) if coordinate is None else coordinate
    one = record.log_density if chosen == "log_density" else record.coords[..., int(chosen)]
    alone = replace(record, coords=one[..., None])  # the same diagnoses for the log density
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
            parts.append("effective samples unknown: too few draws, or chains that never moved")
    except LowlandError as error:
        parts.append(str(error).split(":")[0])
    if coordinate is None and record.coords.shape[-1] > 1 and record.log_weights is None:
        parts[0] = f"{name}, the worst of {record.coords.shape[-1]}: {parts[0]}"
    parts.append(f"{record.coords.shape[0]} chains" if record.coords.shape[0] > 1 else "1 chain")
    parts.append(f"sampler {record.sampler}, temperature {record.temperature:g}")
    return "; ".join(parts)
