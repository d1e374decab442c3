"""Means, errors and paired differences against NumPy."""

import math

import numpy as np
import pytest

from lowland.cli.aggregate import mean_over_runs, paired_differences

SGD = [{"nll": 1.0, "samples": 1.0}, {"nll": 2.5, "samples": 1.0}, {"nll": 9.0, "samples": 1.0}]
SWA = [{"nll": 0.5, "samples": 1.0}, {"nll": 2.25, "samples": 1.0}, {"nll": 8.0, "samples": 1.0}]


def test_means_and_standard_errors():
    values = [run["nll"] for run in SGD]
    mean = mean_over_runs(SGD)
    assert mean["nll"] == pytest.approx(np.mean(values))
    assert mean["nll_se"] == pytest.approx(np.std(values, ddof=1) / math.sqrt(3))
    assert list(mean) == ["nll", "nll_se", "samples", "samples_se"]


def test_one_run_has_a_mean_and_no_error():
    assert math.isnan(mean_over_runs(SGD[:1])["nll_se"])
    assert mean_over_runs(SGD[:1], errors=False) == SGD[0]


def test_a_metric_that_a_run_lacks_has_no_mean():
    """In whichever run it is missing, the first or another one."""
    partial = [{"nll": 1.0}, {"nll": 3.0, "scale": 0.5}]
    for runs in (partial, partial[::-1]):
        mean = mean_over_runs(runs)
        assert mean["nll"] == 2.0
        assert math.isnan(mean["scale"])
        assert math.isnan(mean["scale_se"])


def test_differences_are_of_the_same_runs():
    table = paired_differences({"SGD": SGD, "SWA": SWA, "pool of runs": SWA[:1]})
    pairs = [b["nll"] - a["nll"] for a, b in zip(SGD, SWA, strict=True)]
    assert table.method == ["SWA"]
    assert "samples" not in table.columns
    assert float(table.nll[0]) == pytest.approx(np.mean(pairs))
    assert float(table.nll_se[0]) == pytest.approx(np.std(pairs, ddof=1) / math.sqrt(3))
    assert float(table.nll_se[0]) < mean_over_runs(SGD)["nll_se"] / 5  # a shared luck cancels


def test_a_single_run_has_no_differences():
    assert len(paired_differences({"SGD": SGD[:1], "SWA": SWA[:1]})) == 0
