import numpy as np
import pytest
import torch

from lowland.errors import DataError
from lowland.plots import samples
from lowland.records import Predictive
from tests.plots.contract import FigureContract


def average(n, level=0.3):
    return Predictive("classification", n, nll_by_samples=level + 0.2 / torch.arange(1, n + 1))


class TestSamples(FigureContract):
    figure = "samples"

    def record(self):
        return {"SWAG": average(30), "ensemble": average(5, 0.29), "SWA": average(1)}

    def odd_records(self):
        flat = Predictive("classification", 12, nll_by_samples=torch.ones(12))
        return {
            "alone": average(3),
            "one sample": average(1),
            "constant": flat,
            "at one height": {f"method {i}": flat for i in range(9)},
        }


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


def test_without_values_it_is_refused():
    with pytest.raises(DataError, match="nll_by_samples"):
        samples(Predictive("classification", 3))
