"""Iterates beside what they average to."""

import math

import pytest
import torch

from lowland.errors import ConfigError, DataError
from lowland.plots import iterates
from lowland.records import IterateTable
from tests.plots.contract import FigureContract


def iterate_table(n=12, metric="error", scale=1.0):
    i = torch.arange(1, n + 1)
    noise = torch.rand(n, generator=torch.Generator().manual_seed(0))
    columns = {"iterate": i, "step": 10 * i}
    for name, factor in ((metric, 0.1), ("nll", 0.4)):
        columns[name] = scale * factor * (1 + 0.1 * noise)
        columns[f"{name}_average"] = scale * factor * (0.7 + 0.3 / i)
        columns[f"{name}_ensemble"] = scale * factor * (0.69 + 0.31 / i)
    return IterateTable(columns)


class TestIterates(FigureContract):
    figure = "iterates"

    def record(self):
        return iterate_table()

    def odd_records(self):
        endless = iterate_table()
        endless.columns["error"][-1] = math.inf
        return {
            "one iterate": iterate_table(1),
            "a regression": iterate_table(metric="rmse", scale=100),
            "a loss without end": endless,
            "nothing finite": iterate_table(2, scale=math.nan),
        }

    def test_lines_have_the_values_of_the_record(self):
        record = iterate_table()
        alone, average, ensemble = iterates(record).lines[:3]
        assert alone.get_ydata() == pytest.approx(100 * record.error.numpy())
        assert average.get_ydata() == pytest.approx(100 * record.error_average.numpy())
        assert ensemble.get_ydata() == pytest.approx(100 * record.error_ensemble.numpy())
        nll = iterates(record, metric="nll")
        assert nll.lines[1].get_ydata() == pytest.approx(record.nll_average.numpy())
        assert nll.get_ylabel() == "negative log-likelihood (nats)"

    def test_another_metric_is_refused(self):
        with pytest.raises(ConfigError, match="expected one of error, nll, got 'rmse'"):
            iterates(iterate_table(), metric="rmse")
        with pytest.raises(DataError, match="no metric"):
            iterates(IterateTable({"iterate": torch.tensor([1])}))
