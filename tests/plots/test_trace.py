import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from lowland.errors import ConfigError, DataError
from lowland.plots import trace
from lowland.plots.style import PALETTE
from lowland.records import Chain
from tests.plots.contract import FigureContract, assert_readable


def chains(n=4, draws=60, k=3, *, stuck=None, seed=0):
    """Independent normal draws; `stuck`: a coordinate in which the last chain lies elsewhere."""
    coords = torch.randn(
        n, draws, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    if stuck is not None:
        coords[-1, :, stuck] += 3
    return Chain(coords, -coords.square().sum(2) / 2, sampler="ess")


def grid(side=9):
    ticks = torch.linspace(-2, 2, side, dtype=torch.float64)
    coords = torch.cartesian_prod(ticks, ticks)[None]
    density = -coords.square().sum(2) / 2
    weights = density - density.logsumexp((0, 1))
    return Chain(coords, density, sampler="grid", log_weights=weights)


class TestTrace(FigureContract):
    figure = "trace"

    def record(self):
        return chains()

    def odd_records(self):
        still = chains(2)
        still.coords[:] = 1.0
        holes = chains(2)
        holes.coords[0, ::3, 0] = math.nan
        return {
            "one chain": chains(1),
            "sixteen chains": chains(16, stuck=1),
            "two draws": chains(2, draws=2, k=1),
            "weights": grid(),
            "constant": still,
            "holes": holes,
        }


def test_lines_are_the_chains_and_the_histogram_beside_them_counts_their_draws():
    record = chains()
    ax = trace(record, coordinate=1, bins=12)
    np.testing.assert_array_equal([line.get_ydata() for line in ax.lines], record.coords[..., 1])
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), np.arange(1, 61))
    (beside,) = ax.child_axes
    assert beside.get_shared_y_axes().joined(ax, beside)
    for i, steps in enumerate(beside.patches):
        counts, edges, _ = steps.get_data()
        expected, _ = np.histogram(record.coords[i, :, 1], edges)
        np.testing.assert_allclose(counts * 4 * 60, expected)
        assert steps.get_edgecolor() == to_rgba(PALETTE[i])
    assert len(edges) == 13
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["chain 1", "chain 2", "chain 3", "chain 4"]
    assert trace(chains(16)).get_legend() is None


def test_the_coordinate_with_the_largest_rhat_is_drawn_with_its_diagnostics():
    record = chains(stuck=2)
    ax = trace(record)
    assert ax.get_ylabel() == "coordinate 2"
    (text,) = (text.get_text().replace("\n", " ") for text in ax.texts)
    assert text.startswith(f"coordinate 2, the worst of 3: R-hat {float(record.rhat[2]):.3f}; ")
    assert f"effective samples {float(record.ess[2]):,.0f} of 240" in text
    assert record.rhat[2] > 1.3 > record.rhat[:2].max()  # the others have smaller ones
    other = trace(record, coordinate=0).texts[0].get_text()
    assert f"R-hat {float(record.rhat[0]):.3f}" in other


def test_one_chain_has_the_coordinate_with_the_fewest_effective_samples():
    record = chains(1)
    record.coords[0, :, 1] = record.coords[0, :, 1].cumsum(0)
    ax = trace(record)
    assert ax.get_ylabel() == "coordinate 1"
    assert "R-hat" not in ax.texts[0].get_text()


def test_the_log_density_has_its_own_diagnostics():
    record = chains()
    record.log_density[0] -= 50
    ax = trace(record, coordinate="log_density")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), record.log_density[0])
    rhat = float(replace(record, coords=record.log_density[..., None]).rhat)
    assert f"R-hat {rhat:.3f}" in ax.texts[0].get_text()
    assert rhat > 1.3 > record.rhat.max()


def test_draws_with_weights_are_dots_of_that_area():
    record = grid()
    ax = trace(record, coordinate=0)
    assert not ax.lines
    (dots,) = ax.collections
    areas = dots.get_sizes()
    np.testing.assert_allclose(areas / areas.max(), (record.weights / record.weights.max())[0])
    counts, _, _ = ax.child_axes[0].patches[0].get_data()
    assert len(counts) == 9  # a bin a value, not the default 30
    by_value = record.weights.reshape(9, 9).sum(1)
    np.testing.assert_allclose(counts, by_value)
    assert f"worth {float(record.ess[0]):,.0f} of 81" in ax.texts[0].get_text()


def test_without_arviz_the_caption_has_the_message(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_stats.base.array", None)
    ax = trace(chains())
    assert "need arviz-stats" in ax.texts[0].get_text()
    assert ax.get_ylabel() == "coordinate 0"


def test_the_panels_share_the_place_of_the_users_axes():
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    right.plot([0, 1])
    assert trace(chains(), ax=left) is left
    figure.draw_without_rendering()
    assert left.child_axes[0].get_window_extent().x1 < right.get_window_extent().x0
    assert_readable(left)


def test_what_cannot_be_drawn_raises():
    for wrong in (3, -1, "loss", True):
        with pytest.raises(ConfigError, match="expected 0 to 2, 'log_density' or None"):
            trace(chains(), coordinate=wrong)
    record = chains()
    record.log_density[:] = -math.inf
    with pytest.raises(DataError, match="no finite values"):
        trace(record, coordinate="log_density")
