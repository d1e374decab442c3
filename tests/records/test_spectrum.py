"""Traces, intervals and densities of a spectrum's record."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

from lowland.records import SpectrumResult
from tests.records.examples import EXAMPLES

RECORD, ONE_PROBE = EXAMPLES["SpectrumResult"]


def test_the_trace_is_that_of_leading_and_remaining_eigenvalues():
    means = torch.tensor([-0.1 + 0.07 + 0.1, -0.04 + 0.14 + 0.18]).double()
    torch.testing.assert_close(RECORD.traces, 5 + 48 * means)
    low, high = RECORD.trace_interval
    half = 12.7 * float(RECORD.traces.std()) / math.sqrt(2)
    assert (low, high) == pytest.approx((RECORD.trace - half, RECORD.trace + half))
    assert ONE_PROBE.trace == pytest.approx(3.2)
    assert ONE_PROBE.trace_interval == (-math.inf, math.inf)


def test_all_eigenvalues_have_a_trace_without_probes():
    none = torch.zeros(0, 1).double()
    values = torch.tensor([3.0, 2.0, 1.0]).double()
    record = replace(ONE_PROBE, eigenvalues=values, residuals=0 * values, nodes=none, weights=none)
    assert (record.trace, record.trace_interval) == (6.0, (6.0, 6.0))
    assert math.isnan(replace(record, size=4).trace)


def test_the_density_is_a_mixture_of_gaussians_with_integral_1():
    density = RECORD.smoothed(width=0.1, points=2000)
    step = float(density.grid[1] - density.grid[0])
    assert float(density.mean.sum()) * step == pytest.approx(1, abs=1e-4)
    at = density.grid.numpy()
    expected = sum(stats.norm.pdf(at, v, 0.1) for v in (3, 2)) / 50
    for nodes, weights in zip(RECORD.nodes.tolist(), RECORD.weights.tolist(), strict=True):
        pairs = zip(nodes, weights, strict=True)
        expected = expected + 48 / 50 / 2 * sum(w * stats.norm.pdf(at, n, 0.1) for n, w in pairs)
    torch.testing.assert_close(density.mean, torch.from_numpy(expected))
    assert bool((density.low <= density.mean).all() and (density.mean <= density.high).all())
    assert RECORD.density.width == pytest.approx(0.035)
    alone = ONE_PROBE.density
    assert torch.equal(alone.low, alone.mean)  # no spread is known


def test_it_has_a_table_and_a_message():
    frame = RECORD.to_pandas()
    assert frame["eigenvalue"].tolist() == [3, 2]
    assert "Hessian of 50 weights: trace" in RECORD.message
    assert "BatchNorm refresh" in str(RECORD)
    assert "BatchNorm" not in ONE_PROBE.message


@pytest.mark.parametrize("ending", [".npz", ".json"])
def test_it_comes_back_from_files(tmp_path, ending):
    for record in (RECORD, ONE_PROBE):
        back = SpectrumResult.load(record.save(tmp_path / f"spectrum{ending}"))
        assert back.message == record.message
        torch.testing.assert_close(back.density.mean, record.density.mean)
        assert back.timings == record.timings
