"""Rank histograms of chains.

arviz-plots has none with a band for all bars, and its release 0.8 does not import with
matplotlib 3.11.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lowland import checks
from lowland.errors import ConfigError, DataError, LowlandError
from lowland.plots.overlays import letters_across, words_below
from lowland.plots.style import MUTED, PALETTE, canvas
from lowland.plots.trace import values_of
from lowland.records import Chain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 20
INSIDE, OUTSIDE, BAND = PALETTE[0], PALETTE[1], "#d9d9d9"
SURE = 0.95  # probability that all bars of agreeing chains lie in the band
TALLEST = 0.45  # of a row's height
CUT = 2.5  # times the band: one stuck chain would make all others flat


def rank(
    record: Chain,
    *,
    ax: Axes | None = None,
    coordinate: int | str | None = None,
    bins: int = BINS,
    thin: int = 1,
) -> Axes:
    r"""Draws each chain's histogram of ranks among all chains' draws (Vehtari et al. 2021).

    Chains that sample the same distribution have \(S / B\) ranks in each of B bins, give or take.
    One row per chain: bars show the deviation from that count. With independent draws all bars of
    all chains lie in the grey band with probability 95% (counts are hypergeometric). Bars outside
    are orange; bars taller than 2.5 bands are cut. Autocorrelated chains leave the band, too:
    `thin` them until draws are nearly independent.

    Args:
        coordinate: as for `trace`. bins: number of bins, B.
        thin: use every `thin`-th draw only.

    Raises:
        ConfigError: weighted draws, bins or thin below 1.
        DataError: a single chain, fewer draws than bins, values that are not finite.

    >>> import torch
    >>> draws = torch.randn(4, 100, 1, generator=torch.Generator().manual_seed(0))
    >>> axes = rank(Chain(draws, -draws[..., 0].square() / 2, sampler="ess"))
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['chain 1', 'chain 2', 'chain 3', 'chain 4']
    """
    bins, thin = checks.whole("bins", bins, least=1), checks.whole("thin", thin, least=1)
    values, name = _comparable(record, coordinate, bins, thin)
    chains, draws = values.shape
    edges = np.linspace(0.5, values.size + 0.5, bins + 1)
    counts = np.stack([np.histogram(row, edges)[0] for row in _ranks(values)])
    expected = draws / bins
    low, high = (v / expected - 1 for v in _band(chains, draws, edges))  # (bins,)
    off = counts / expected - 1
    tallest = max(high.max(), -low.min())
    limit = min(max(np.abs(off).max(), tallest), CUT * tallest)
    scale = TALLEST / limit
    clipped = off.clip(-limit, limit)
    with canvas(ax, size=(6.4, min(1.3 + 0.42 * chains, 9.0)), room=(0.08, 0)) as ax:
        ax.grid(False)
        for i, (row, bar) in enumerate(zip(off, clipped, strict=True)):
            ax.axhline(i, color=MUTED, linewidth=0.8, zorder=3)
            for edge in (low, high):
                ax.stairs(i - scale * edge, edges, baseline=i, fill=True, color=BAND, zorder=1)
            beyond = (row < low) | (row > high)
            for mask, ink in ((~beyond, INSIDE), (beyond, OUTSIDE)):
                bars = np.where(mask, i - scale * bar, i)
                ax.stairs(bars, edges, baseline=i, fill=True, color=ink, alpha=0.75, zorder=2)
        step = max(1, int(np.ceil(chains / 32)))  # as many names as there is room for
        rows = range(0, chains, step)
        ax.set_yticks(list(rows), [f"chain {i + 1}" for i in rows])
        ax.tick_params(axis="y", length=0)
        ax.set(xlim=(edges[0], edges[-1]), ylim=(chains - 0.5, -0.5))  # the first on top
        ax.set_xlabel(f"rank of {name.removesuffix(' (nats)')} among all {values.size:,} draws")
        words = [f"rows: ± {limit:.0%} of the {expected:g} expected draws per bin"]
        words[0] += ", taller bars cut" if (clipped != off).any() else ""
        words.append(f"band: contains all bars of independent draws with probability {SURE:.0%}")
        words += [f"every {thin}th draw"] if thin > 1 else []
        words_below(ax, "; ".join(words), width=letters_across(ax))
    return ax


def _comparable(
    record: Chain, coordinate: int | str | None, bins: int, thin: int
) -> tuple[np.ndarray, str]:
    """Every `thin`-th value of chains that have ranks, (chains, S), and the values' name."""
    if record.log_weights is not None:
        raise ConfigError(
            "rank: expected a sampler's chains, got draws with weights; look at record.plot()."
        )
    values, name = values_of(record, coordinate)
    values = values[:, ::thin]
    chains, draws = values.shape
    if chains < 2:
        raise DataError("rank: expected chains to compare, got one; sample two or more.")
    if draws < bins:
        raise DataError(
            f"rank: expected at least as many draws a chain as bins, {bins}, got {draws}."
        )
    if not np.isfinite(values).all():
        raise DataError(f"{name}: NaN or infinite values have no rank; sample again.")
    return values, name


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks among all values, from 1; equal values share their average rank."""
    try:
        from scipy.stats import rankdata
    except ImportError:
        raise LowlandError('ranks need scipy: pip install "lowland[samplers]"') from None
    return np.asarray(rankdata(values, axis=None)).reshape(values.shape)


def _band(chains: int, draws: int, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lower and upper limit of all counts, by Bonferroni: (bins,) each.

    A chain has `draws` of all ranks at random, so that a bin's count is hypergeometric.
    """
    from scipy.stats import hypergeom

    sizes = np.diff(np.floor(edges))  # how many ranks each bin has
    tail = (1 - SURE) / 2 / (chains * len(sizes))
    counts = hypergeom(chains * draws, sizes.astype(int), draws)
    return counts.ppf(tail), counts.isf(tail)
