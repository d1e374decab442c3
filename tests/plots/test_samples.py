import numpy as np
import pytest
import torch

from lowland.errors import ConfigError, DataError
from lowland.plots import samples
from lowland.records import Predictive
from tests.plots.contract import FigureContract


def average(n, level=0.3):
    curve = level + 0.2 / torch.arange(1, n + 1)
    return Predictive(
        "classification", n, nll_by_samples=curve, error_by_samples=(curve / 4).double()
    )


class TestSamples(FigureContract):
    figure = "samples"

    def record(self):
        return {"SWAG": average(30), "ensemble": average(5, 0.29), "SWA": average(1)}

    def odd_records(self):
        flat = Predictive("classification", 12, nll_by_samples=torch.ones(12))
        near = [
            Predictive("classification", 12, nll_by_samples=flat.nll_by_samples + 1e-6 * i)
            for i in range(9)
        ]
        return {
            "alone": average(3),
            "one sample": average(1),
            "constant": flat,
            "at one height": {f"method {i}": near[i] for i in range(9)},
            "equal": {f"method {i}": flat for i in range(9)},
        }


class TestError(TestSamples):
    def odd_records(self):
        exact = Predictive("classification", 2, error_by_samples=torch.zeros(2))
        return {"alone": average(3), "no error at all": exact}

    def draw(self, record, **options):
        return super().draw(record, metric="error", **options)


@pytest.mark.parametrize(("count", "scale"), [(1, "linear"), (10, "linear"), (11, "log")])
def test_lines_hold_the_data_and_long_ones_are_logarithmic(count, scale):
    record = average(count)
    ax = samples(record)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), np.arange(1, count + 1))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), record.nll_by_samples)
    assert ax.get_xscale() == scale


def test_final_values_are_labelled():
    ax = samples({"SWAG": average(10), "SWA": average(1)})
    assert [text.get_text() for text in ax.texts] == ["SWAG 0.320", "SWA 0.500"]


def test_equal_lines_are_one_with_both_names():
    ax = samples({"SGD": average(5), "SWAG": average(5, 0.1), "SWA": average(5)})
    assert [line.get_label() for line in ax.lines] == ["SGD = SWA", "SWAG"]
    assert ax.texts[0].get_text() == "SGD = SWA 0.340"


def test_without_values_it_raises():
    with pytest.raises(DataError, match="nll_by_samples"):
        samples(Predictive("classification", 3))
    with pytest.raises(DataError, match="no error_by_samples; predict on a classifier's examples"):
        samples(Predictive("regression", 3, nll_by_samples=torch.ones(3)), metric="error")
    with pytest.raises(ConfigError, match="expected one of nll, error, got 'ece'"):
        samples(average(3), metric="ece")


def test_errors_are_in_percent():
    ax = samples({"SWAG": average(10)}, metric="error")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 100 * average(10).error_by_samples)
    assert ax.get_ylabel() == "error (%)"
    assert ax.texts[0].get_text() == "SWAG 8.00%"
