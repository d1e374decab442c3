"""Metrics of methods against their costs."""

import math

import numpy as np
import pytest
import torch

from lowland.errors import ConfigError
from lowland.plots import cost
from lowland.records import Table
from tests.plots.contract import FigureContract, lay_out


def costs(count=3, *, scale=1.0, **changes):
    """Methods, of which the last costs most."""
    steps = torch.arange(count, dtype=torch.float64)
    columns = {
        "epochs": 60 + scale * 20 * steps**2,
        "samples": 1 + 9 * steps,
        "accuracy": 0.9 + 0.01 * steps,
        "accuracy_se": torch.full((count,), 0.005, dtype=torch.float64),
        "nll": 0.5 - 0.02 * steps,
        "nll_se": torch.full((count,), 0.01, dtype=torch.float64),
    }
    names = [f"method of a name {i}" for i in range(count)]
    return Table({"method": names, **columns, **changes})


class TestCost(FigureContract):
    figure = "cost"

    def record(self):
        return costs()

    def odd_records(self):
        same = torch.full((3,), 60.0, dtype=torch.float64)
        return {
            "no row": costs(0),
            "one row": costs(1),
            "many rows": costs(10),
            "far apart": costs(4, scale=10.0),
            "equal costs": costs(epochs=same),
            "equal rows": costs(epochs=same, nll=same, accuracy=same),
            "nothing trained": costs(epochs=torch.tensor([0.0, 60.0, 69.0])),
            "a run without end": costs(nll=torch.tensor([0.5, math.inf, math.nan])),
            "one run": Table({n: v for n, v in costs().columns.items() if not n.endswith("_se")}),
        }

    def test_points_stand_at_cost_and_metric_with_one_error(self):
        record = costs()
        lowest = cost(record, cost="samples")
        (highest,) = lowest.child_axes
        assert lowest.get_xlabel() == "prediction (forward passes per example)"
        for panel, name, factor in ((lowest, "nll", 1), (highest, "accuracy", 100)):
            points = np.array([c.lines[0].get_xydata()[0] for c in panel.containers])
            expected = np.stack([record.samples, factor * record.columns[name]], axis=1)
            np.testing.assert_allclose(points, expected)
            (_, low), (_, high) = panel.containers[1].lines[2][1].get_segments()[0]
            error = factor * float(record.columns[f"{name}_se"][1])
            assert (high - low) / 2 == pytest.approx(error)
            texts = {text.get_text() for text in panel.texts}
            assert texts == {f"● {name}" for name in record.method}

    def test_methods_of_one_colour_have_other_markers(self):
        ax = self.pictures()["many rows"]
        colours = [text.get_color() for text in ax.texts]
        assert colours[0] == colours[7]
        assert [text.get_text()[0] for text in ax.texts] == ["●"] * 7 + ["■"] * 3
        assert [c.lines[0].get_marker() for c in ax.containers] == ["o"] * 7 + ["s"] * 3

    def test_a_regression_has_its_rmse(self):
        columns = costs().columns
        table = Table(
            {"method": columns["method"], "epochs": columns["epochs"], "rmse": columns["nll"]}
        )
        assert cost(table).get_ylabel() == "root mean squared error"

    def test_costs_far_apart_are_logarithmic(self):
        assert self.pictures()["far apart"].get_xscale() == "log"
        assert self.pictures()[""].get_xscale() == "linear"

    @pytest.mark.parametrize("count", [1, 3, 10])
    def test_methods_of_equal_cost_hide_none(self, count):
        """Markers stand apart, and none is cut off at a side of the panel."""
        ax = cost(costs(count, samples=torch.full((count,), 30.0)), cost="samples")
        lay_out(ax)
        for panel in (ax, *ax.child_axes):
            box = panel.get_window_extent()
            markers = sorted(c.lines[0].get_window_extent().bounds[::2] for c in panel.containers)
            assert len(markers) == count
            centers = np.array([left + width / 2 for left, width in markers])
            points = ax.figure.dpi / 72
            assert np.all(np.diff(centers) > 5 * points)
            assert box.x0 + 3 * points < centers.min() <= centers.max() < box.x1 - 3 * points

    def test_labels_of_a_panel_stay_beside_it(self):
        lowest = self.pictures()["many rows"]
        lay_out(lowest)
        for panel in (lowest, *lowest.child_axes):
            box = panel.get_window_extent()
            for text in panel.texts:
                extent = text.get_window_extent()
                assert box.y0 - 2 < (extent.y0 + extent.y1) / 2 < box.y1 + 2

    def test_what_it_cannot_draw_is_refused(self):
        with pytest.raises(ConfigError, match="a column of costs, epochs, samples, got 'seconds'"):
            cost(costs(), cost="seconds")
        with pytest.raises(ConfigError, match="a column of nll, rmse, accuracy"):
            cost(Table({"method": ["a"], "epochs": torch.ones(1)}))
