"""Calibration, selective prediction and shift, recomputed from what the records hold."""

import math

import pytest
import torch

from lowland.records import Reliability, RiskCoverage, ShiftCurves


def test_expected_calibration_error() -> None:
    record = Reliability(
        torch.tensor([0.3, math.nan, 0.9]),
        torch.tensor([0.5, math.nan, 0.8]),
        torch.tensor([30, 0, 70]),
    )
    assert record.ece == pytest.approx(0.3 * 0.2 + 0.7 * 0.1)


def test_the_mean_over_kinds() -> None:
    curves = {"noise": {"nll": torch.tensor([0.5, 1.0])}, "blur": {"nll": torch.tensor([0.5, 3.0])}}
    assert ShiftCurves(torch.tensor([0, 1]), curves).mean("nll").tolist() == [0.5, 2.0]


def test_the_area_under_risk_and_coverage_against_the_best_order() -> None:
    g = torch.Generator().manual_seed(0)
    wrong = (torch.rand(50, generator=g) < 0.3).double()
    coverage = torch.arange(1, 51) / 50
    record = RiskCoverage(coverage, wrong.cumsum(0) / torch.arange(1, 51))
    best = RiskCoverage(coverage, wrong.sort().values.cumsum(0) / torch.arange(1, 51))
    assert best.excess == pytest.approx(0, abs=1e-12)
    assert record.excess == pytest.approx(record.aurc - best.aurc)
    assert record.excess > 0.05
