"""Whether chains sample the same: their ranks among all draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lowland import checks
from lowland.errors import ConfigError, DataError, LowlandError
from lowland.plots.overlays import letters_across, make_room, words_below
from lowland.plots.style import MUTED, PALETTE, canvas
from lowland.plots.trace import values_of
from lowland.records import Chain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 20
INSIDE, OUTSIDE, BAND = PALETTE[0], PALETTE[1], "#d9d9d9"
SURE = 0.95  # of the band: so often do all bars of chains that agree lie in it
TALLEST = 0.45  # of a row's height
CUT = 2.5  # bands: one stuck chain would leave the others flat


def rank(
    record: Chain,
    *,
    ax: Axes | None = None,
    coordinate: int | str | None = None,
    bins: int = BINS,
    thin: int = 1,
) -> Axes:
    r"""Draws each chain's histogram of ranks among all chains' draws (Vehtari et al. 2021).

    Chains that sample the same have \(S / B\) ranks in each of B bins. A row a chain: bars rise
    and fall from that line, and the grey band is where all bars of all chains lie in 95% of cases
    where draws are independent, each count being hypergeometric. Bars that leave it are orange.
    Bars are cut where they are 2.5 times as tall as the band.
    Slow chains leave it too: `thin` them to what is nearly independent before blaming them.

    Args:
        coordinate: as for `trace`. bins: of the ranks, B.
        thin: keeps every so manieth draw.

    Raises:
        ConfigError: draws with weights, which are no chain's; bins or thin below 1.
        DataError: a single chain, fewer draws than bins, values that are not finite.

    >>> import torch
    >>> draws = torch.randn(4, 100, 1, generator=torch.Generator().manual_seed(0))
    >>> axes = rank(Chain(draws, -draws[..., 0].square() / 2, sampler="ess"))
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['chain 1', 'chain 2', 'chain 3', 'chain 4']
    """
    if record.log_weights is not None:
        raise ConfigError(
            "rank: expected a sampler's chains, got draws with weights; look at record.plot()."
        )
    bins, thin = checks.whole("bins", bins, least=1), checks.whole("thin", thin, least=1)
    values, name = values_of(record, coordinate)
    values = values[:, ::thin]
    chains, draws = values.shape
    if chains < 2:
        raise DataError("rank: one chain has the ranks of all draws; sample two or more.")
    if draws < bins:
        raise DataError(f"rank: expected as many draws a chain as bins, {bins}, got {draws}.")
    if not np.isfinite(values).all():
        raise DataError(f"{name}: values that are not finite have no rank; sample again.")
    edges = np.linspace(0.5, values.size + 0.5, bins + 1)
    counts = np.stack([np.histogram(row, edges)[0] for row in _ranks(values)])
    expected = draws / bins
    low, high = (v / expected - 1 for v in _band(chains, draws, edges))  # (bins,)
    off = counts / expected - 1
    tallest = max(high.max(), -low.min())
    most = min(max(np.abs(off).max(), tallest), CUT * tallest)
    scale = TALLEST / most
    drawn = off.clip(-most, most)
    if ax is not None:
        make_room(ax, beside=0)
    with canvas(ax, size=(6.4, min(1.3 + 0.42 * chains, 9.0))) as ax:
        ax.grid(False)
        for i, (row, bar) in enumerate(zip(off, drawn, strict=True)):
            ax.axhline(i, color=MUTED, linewidth=0.8, zorder=3)
            for edge in (low, high):
                ax.stairs(i - scale * edge, edges, baseline=i, fill=True, color=BAND, zorder=1)
            beyond = (row < low) | (row > high)
            for there, ink in ((~beyond, INSIDE), (beyond, OUTSIDE)):
                bars = np.where(there, i - scale * bar, i)
                ax.stairs(bars, edges, baseline=i, fill=True, color=ink, alpha=0.75, zorder=2)
        step = max(1, int(np.ceil(chains / 32)))  # as many names as there is room for
        rows = range(0, chains, step)
        ax.set_yticks(list(rows), [f"chain {i + 1}" for i in rows])
        ax.tick_params(axis="y", length=0)
        ax.set(xlim=(edges[0], edges[-1]), ylim=(chains - 0.5, -0.5))  # the first on top
        ax.set_xlabel(f"rank of {name.removesuffix(' (nats)')} among all {values.size:,} draws")
        words = [f"rows: ± {most:.0%} of the {expected:g} draws a bin that chains that agree have"]
        words[0] += ", taller bars cut" if (drawn != off).any() else ""
        words.append(f"band: all bars of independent draws in {SURE:.0%} of cases")
        words += [f"every {thin}th draw"] if thin > 1 else []
        words_below(ax, "; ".join(words), width=letters_across(ax))
    return ax


def _ranks(values: np.ndarray) -> np.ndarray:
    """Among all values, from 1; equal ones have their average, whichever chain comes first."""
    try:
        from scipy.stats import rankdata
    except ImportError:
        raise LowlandError('ranks need scipy: pip install "lowland[samplers]"') from None
    return np.asarray(rankdata(values, axis=None)).reshape(values.shape)


def _band(chains: int, draws: int, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The counts between which all bars lie, by Bonferroni: (bins,) each.

    A chain's draws take `draws` of all ranks at random, so that a bin holds a hypergeometric count.
    """
    from scipy.stats import hypergeom

    sizes = np.diff(np.floor(edges))  # how many ranks each bin has
    tail = (1 - SURE) / 2 / (chains * len(sizes))
    counts = hypergeom(chains * draws, sizes.astype(int), draws)
    return counts.ppf(tail), counts.isf(tail)
