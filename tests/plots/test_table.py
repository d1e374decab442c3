import numpy as np
import pytest
import torch

from lowland.errors import ConfigError
from lowland.plots import table
from lowland.records import Table
from tests.plots.contract import FigureContract

METHODS = Table(
    {
        "method": ["SGD", "SWA", "SWAG"],
        "loss": torch.tensor([3.0, 2.0, 1.0]),
        "nll": torch.tensor([0.5, 0.2, 0.3]),
        "accuracy": torch.tensor([0.8, 0.7, 0.9]),
        "seconds": torch.tensor([3, 1, 2]),
    }
)


class TestTable(FigureContract):
    figure = "table"

    def record(self):
        return METHODS

    def odd_records(self):
        return {
            "no row": Table({"nll": torch.zeros(0)}),
            "one row": Table({"method": ["SGD"], "nll": torch.tensor([0.5])}),
            "constant": Table({"nll": torch.ones(4)}),
            "nothing finite": Table({"nll": torch.tensor([torch.nan, torch.inf])}),
            "a wide range": Table({"nll": torch.tensor([0.1, torch.nan, 1e5])}),
            "many rows": Table({"nll": torch.arange(60)}),
        }


def points(ax):
    """(value, row) of the dots: the others, the best."""
    return [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in ax.lines]


def test_rows_values_and_the_best():
    ax = table(METHODS)
    others, best = points(ax)
    np.testing.assert_allclose(others, [(0.5, 0), (0.3, 2)])
    np.testing.assert_allclose(best, [(0.2, 1)])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["SGD", "SWA", "SWAG"]
    assert [text.get_text() for text in ax.texts] == ["0.5", "0.2", "0.3"]
    assert ax.yaxis_inverted()


@pytest.mark.parametrize(
    ("column", "best", "rows"),
    [("accuracy", None, [2]), ("seconds", None, []), ("seconds", "max", [0]), ("loss", "max", [0])],
)
def test_which_end_is_best(column, best, rows):
    assert [row for _, row in points(table(METHODS, column=column, best=best))[1]] == rows


def test_the_column_falls_back_to_the_first_numeric_one():
    record = Table({"method": ["a", "b"], "rmse": torch.tensor([1.0, 2.0])})
    assert table(record).get_xlabel() == "rmse"
    with pytest.raises(ConfigError, match="'method'"):
        table(record, column="method")
    with pytest.raises(ConfigError, match="there is none"):
        table(Table({"method": ["a"]}))
    with pytest.raises(ConfigError, match="'lowest'"):
        table(record, best="lowest")
