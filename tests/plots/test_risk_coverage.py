import numpy as np
import pytest
import torch

from lowland.errors import DataError
from lowland.plots import risk_coverage
from lowland.records import RiskCoverage
from lowland.uncertainty.selective import risk_coverage as computed
from tests.plots.contract import FigureContract


def record(n=300, seed=0):
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(n, generator=g)
    return computed(u, (torch.rand(n, generator=g) < u).double())


class TestRiskCoverage(FigureContract):
    figure = "risk_coverage"

    def record(self):
        return record()

    def odd_records(self):
        return {
            "one row": record(1),
            "never wrong": computed(torch.arange(50), torch.zeros(50)),
            "many": {f"method {i}": record(40, i) for i in range(9)},
        }


def test_the_line_is_the_record_without_its_first_rows():
    one = record(1000)
    ax = risk_coverage({"SWAG": one})
    x, y = ax.lines[0].get_data()
    assert x[0] == pytest.approx(21 / 1000)
    assert x[-1] == 1
    index = np.rint(x * 1000).astype(int) - 1
    np.testing.assert_allclose(y, one.risk.numpy()[index])
    assert ax.texts[0].get_text() == f"SWAG, AURC {one.aurc:.4f}"


def test_no_examples_is_reported():
    with pytest.raises(DataError, match="no examples"):
        risk_coverage(RiskCoverage(torch.zeros(0), torch.zeros(0)))
