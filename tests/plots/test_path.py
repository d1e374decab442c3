import numpy as np
import pytest
import torch

from lowland.errors import ConfigError
from lowland.plots import path
from lowland.records import PathResult
from tests.plots.contract import FigureContract

T = torch.linspace(0, 1, 11, dtype=torch.float64)


def record(height=1.0, *, test=True, **fields):
    loss = fields.pop("loss", 0.5 + height * 4 * T * (1 - T))
    fields = {"error": loss / 4, "l2": T, "distance": T, "length": 2 * T} | fields
    if test:
        fields |= {"test_loss": loss + 0.1, "test_error": loss / 4 + 0.01}
    return PathResult(T, loss, **fields)


class TestPath(FigureContract):
    figure = "path"

    def record(self):
        return {"line": record(), "Bezier": record(0.1), "chain": record(0.2)}

    def odd_records(self):
        return {
            "alone": record(test=False),
            "many": {f"curve {i}": record(i / 10) for i in range(9)},
            "gaps": record(loss=torch.tensor([torch.nan, torch.inf] * 5 + [1.0])),
            "nothing": record(loss=torch.full_like(T, torch.nan)),
            "wide": record(1e4),
        }


class TestError(TestPath):
    def odd_records(self):
        return {k: v for k, v in super().odd_records().items() if k != "nothing"}

    def draw(self, record, **options):
        return super().draw(record, metric="error", **options)


def line(ax, label):
    return next(line for line in ax.lines if line.get_label() == label)


def test_train_is_solid_and_test_dashed_in_one_colour():
    ax = path({"line": record(), "Bezier": record(0.1)})
    own, test = line(ax, "Bezier"), [one for one in ax.lines if one.get_label() == "_test"][1]
    np.testing.assert_allclose(own.get_ydata(), record(0.1).loss)
    np.testing.assert_allclose(test.get_ydata(), record(0.1).test_loss)
    assert (own.get_linestyle(), test.get_linestyle()) == ("-", "--")
    assert own.get_color() == test.get_color() != line(ax, "line").get_color()
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["line", "Bezier", "train", "test"]


def test_the_ends_are_marked_and_nothing_outside():
    t = torch.linspace(-0.5, 1.5, 9, dtype=torch.float64)
    ax = path(PathResult(t, *[t * t] * 5, outside=True))
    (ends,) = [one for one in ax.lines if one.get_label() == "_ends"]
    assert ends.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert ax.get_legend() is None  # one line has nothing to be told from


def test_metrics_and_units():
    one = record(metrics={"ece": T / 10, "test_ece": T / 5})
    assert path(one, metric="error").get_ylabel() == "error (fraction)"
    ax = path(one, metric="ece")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), T / 10)
    assert len([one for one in ax.lines if one.get_label() == "_test"]) == 1
    with pytest.raises(ConfigError, match="expected one of loss, error, ece, got 'rmse'"):
        path(one, metric="rmse")
    regression = record(test=False, error=torch.full_like(T, torch.nan), metrics={"rmse": T})
    with pytest.raises(ConfigError, match="expected one of loss, rmse, got 'error'"):
        path(regression, metric="error")


def test_wide_ranges_are_logarithmic_and_gaps_stay():
    assert path(record(1e4)).get_yscale() == "log"
    assert path(record()).get_yscale() == "linear"
    loss = torch.tensor([1.0, torch.inf, torch.nan, *[2.0] * 8])
    drawn = path(record(loss=loss, test=False)).lines[0].get_ydata()
    assert np.isfinite(drawn).tolist() == [True, False, False, *[True] * 8]
