import math
import sys

import numpy as np
import pytest
from scipy.stats import rankdata

from lowland.errors import ConfigError, DataError, LowlandError
from lowland.plots import rank
from lowland.plots.rank import BAND, INSIDE, OUTSIDE, _band
from tests.plots.contract import FigureContract
from tests.plots.test_trace import chains, grid


class TestRank(FigureContract):
    figure = "rank"

    def record(self):
        return chains()

    def odd_records(self):
        still = chains(2)
        still.coords[:] = 1.0
        return {
            "two chains": chains(2, k=1),
            "sixteen chains": chains(16, stuck=1),
            "forty chains": chains(40, stuck=1),
            "constant": still,
        }


def bars(ax, colour):
    """Heights above each chain's line, in draws: (chains, bins)."""
    from matplotlib.colors import to_rgb

    patches = [p for p in ax.patches if p.get_facecolor()[:3] == to_rgb(colour)]
    return np.stack([p.get_data().baseline - p.get_data().values for p in patches])


def test_bars_are_the_counts_of_ranks_less_those_of_equal_chains():
    record = chains(draws=200)
    ax = rank(record, coordinate=1, bins=10)
    heights = bars(ax, INSIDE) + bars(ax, OUTSIDE)
    ranks = rankdata(record.coords[..., 1].reshape(-1)).reshape(4, 200)
    counts = np.stack([np.histogram(row, np.linspace(0.5, 800.5, 11))[0] for row in ranks])
    assert np.ptp(counts) > 5
    np.testing.assert_allclose(heights / heights.max(), (counts - 20) / (counts.max() - 20))
    assert not bars(ax, OUTSIDE).any()
    assert np.abs(bars(ax, BAND)).max() >= np.abs(heights).max()
    assert ax.get_ylim() == (3.5, -0.5)  # the first chain on top


def test_the_band_holds_all_bars_of_chains_that_agree_as_often_as_it_says():
    rng = np.random.default_rng(0)
    low, high = _band(4, 100, np.linspace(0.5, 400.5, 11))
    inside = 0
    for _ in range(1000):
        ranks = rng.permutation(400).reshape(4, 100)
        counts = np.stack([np.bincount(row // 40, minlength=10) for row in ranks])
        inside += bool(((counts >= low) & (counts <= high)).all())
    assert 940 <= inside <= 995  # Bonferroni's is at least 95%, here of counts
    # one bar's own 95% would not do: 40 of them leave it nearly always
    narrow = np.sqrt(100 * 0.1 * 0.9 * 0.75) * 1.96
    outside = 0
    for _ in range(100):
        ranks = rng.permutation(400).reshape(4, 100)
        counts = np.stack([np.bincount(row // 40, minlength=10) for row in ranks])
        outside += bool((np.abs(counts - 10) > narrow).any())
    assert outside > 50


def test_a_chain_that_lies_elsewhere_leaves_the_band_and_is_cut():
    ax = rank(chains(16, draws=200, stuck=1))
    outside = bars(ax, OUTSIDE)
    assert ax.get_xlabel() == "rank of coordinate 1 among all 3,200 draws"
    assert outside[-1, -1] == outside.max() > 0 > outside[-1, 0]
    assert np.abs(outside).max() < 0.5  # a row does not reach into the next
    assert "taller bars cut" in ax.texts[0].get_text().replace("\n", " ")
    assert "cut" not in rank(chains(draws=200)).texts[0].get_text()


def test_slow_chains_are_thinned():
    record = chains(draws=200)
    ax = rank(record, coordinate=0, thin=5)
    assert ax.get_xlabel() == "rank of coordinate 0 among all 160 draws"
    assert "every 5th draw" in ax.texts[0].get_text().replace("\n", " ")


def test_equal_values_share_their_rank():
    """Draws that a chain repeats, as after a refusal: their ranks do not depend on the order."""
    record = chains(2, draws=40, k=1)
    record.coords[:] = 1.0
    both = bars(rank(record, bins=4), INSIDE) + bars(rank(record, bins=4), OUTSIDE)
    np.testing.assert_allclose(both[0], both[1])


def test_what_has_no_ranks_raises(monkeypatch):
    with pytest.raises(ConfigError, match="draws with weights"):
        rank(grid())
    with pytest.raises(DataError, match="sample two or more"):
        rank(chains(1))
    with pytest.raises(DataError, match="at least as many draws a chain as bins, 20, got 10"):
        rank(chains(draws=10))
    with pytest.raises(ConfigError, match="thin: expected a whole number of at least 1, got 0"):
        rank(chains(), thin=0)
    record = chains()
    record.coords[0, 0, 0] = math.nan
    with pytest.raises(DataError, match="NaN or infinite values have no rank"):
        rank(record, coordinate=0)
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(LowlandError, match=r"ranks need scipy.*lowland\[samplers\]"):
        rank(chains(), coordinate=0)
