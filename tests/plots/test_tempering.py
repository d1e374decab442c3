import math

import numpy as np
import pytest
import torch

from lowland.errors import ConfigError, DataError
from lowland.plots import tempering
from lowland.records import TemperingResult
from tests.plots.contract import FigureContract


def tempering_record(scales=(0.1, 1.0, math.inf), *, height=1.0, second=True, **options):
    """A valley in log T, at T = 100 for s = 1."""
    T = torch.tensor([1.0, 10.0, 100.0, 1000.0]).repeat(len(scales))
    s = torch.tensor(scales).repeat_interleave(4)
    shift = torch.arange(len(scales)).repeat_interleave(4) - 1.0
    nll = height * (0.25 + 0.1 * (T.log10() - 2) ** 2 + 0.05 * shift.abs())
    rows = {"second_metric": nll / 2, "second_metric_name": "error"} if second else {}
    return TemperingResult(T, s, nll, **rows, best=int(nll.argmin()), **options)


class TestTempering(FigureContract):
    figure = "tempering"

    def record(self):
        return tempering_record(samples=30, evaluations=12345, nll_se=torch.full((12,), 0.02))

    def odd_records(self):
        steep = tempering_record()
        steep.nll[0], steep.nll[1] = math.nan, 100.0
        one = TemperingResult(*[torch.ones(1)] * 3)
        many = tempering_record(tuple(10.0**i for i in range(-6, 6)))
        return {
            "steep": steep,
            "one pair": one,
            "many priors": many,
            "negative": tempering_record(height=-1),
        }


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


def test_a_line_a_prior_in_the_order_of_temperatures():
    record = tempering_record()
    mixed = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    columns = (record.temperatures, record.prior_scales, record.nll)
    best = int((mixed == record.best).nonzero())
    for one in (record, TemperingResult(*(c[mixed] for c in columns), best=best)):
        ax = tempering(one)
        plotted = lines(ax)
        assert list(plotted) == ["prior sd 0.1", "prior sd 1", "flat prior", "chosen"]
        for i, line in enumerate(list(plotted.values())[:3]):
            np.testing.assert_array_equal(line.get_xdata(), [1, 10, 100, 1000])
            np.testing.assert_allclose(line.get_ydata(), record.nll[4 * i : 4 * i + 4])
        np.testing.assert_allclose(plotted["chosen"].get_xydata(), [[100, 0.25]])
        assert ax.get_xscale() == "log"
        assert ax.get_ylabel() == "validation NLL (nats)"


def test_errors_are_in_percent_and_the_words_name_what_was_chosen():
    ax = tempering(tempering_record(samples=30), metric="error")
    assert lines(ax)["chosen"].get_ydata() == pytest.approx([12.5])
    assert ax.get_ylabel() == "validation error (%)"
    text = ax.texts[0].get_text().replace("\n", " ")
    assert text == "chosen: temperature 100, prior sd 1 (12.5%); averages of 30 samples"


def test_bars_are_standard_errors():
    record = tempering_record(nll_se=torch.linspace(0.01, 0.12, 12))
    bars = [c.get_segments() for c in tempering(record).collections]
    assert [len(b) for b in bars] == [4, 4, 4]
    far = np.array(bars[1])[:, :, 1]
    np.testing.assert_allclose(far[:, 1] - far[:, 0], 2 * record.nll_se[4:8], rtol=1e-6)
    assert not tempering(record, metric="error").collections  # they are the NLL's


def test_values_over_decades_are_logarithmic():
    assert tempering(tempering_record()).get_yscale() == "linear"
    steep = tempering_record()
    steep.nll[0] = 100.0
    assert tempering(steep).get_yscale() == "log"
    steep.nll[1] = -1.0
    assert tempering(steep).get_yscale() == "linear"


def test_what_cannot_be_drawn_raises():
    with pytest.raises(ConfigError, match="expected one of nll, error, got 'rmse'"):
        tempering(tempering_record(), metric="rmse")
    with pytest.raises(ConfigError, match="expected one of nll, got 'error'"):
        tempering(tempering_record(second=False), metric="error")
    with pytest.raises(DataError, match="all values are NaN"):
        tempering(tempering_record(height=math.nan))
