"""Three panels over cycles."""

import math

import numpy as np
import pytest
import torch

from lowland.errors import ConfigError
from lowland.plots import cycles
from lowland.records import CycleSeries
from tests.plots.contract import FigureContract


def series(n=41, *, ends=(10, 20, 30, 40), scale=1.0, metric="error", split="test", first=0.0):
    step = torch.arange(n)
    wave = (math.pi * step / 10).cos().abs()
    values = scale * (0.1 + 0.1 * wave)
    values[:1] += first
    return CycleSeries(
        step=100 * step,
        distance=step.sqrt() + wave,
        metrics={metric: values, "nll": wave},
        lr_step=100 * step,
        lr=0.1 * wave,
        members=torch.tensor([100 * end - 500 for end in ends]),
        ends=torch.tensor([100 * end for end in ends]),
        split=split,
    )


class TestCycles(FigureContract):
    figure = "cycles"

    def record(self):
        return series()

    def odd_records(self):
        endless = series()
        endless.metrics["error"][3] = math.inf
        return {
            "no point": series(0, ends=()),
            "one point": series(1, ends=()),
            "a regression": series(metric="rmse", split="", scale=1e4),
            "a loss without end": endless,
            "nothing finite": series(scale=math.nan),
            "many cycles": series(ends=tuple(range(41))),
            "a wide range": series(first=50.0),
        }

    def test_panels_have_the_series_of_the_record(self):
        record = series()
        lowest = cycles(record)
        middle, highest = lowest.child_axes
        labels = [panel.get_ylabel() for panel in (highest, middle, lowest)]
        assert labels == ["learning rate", "test error (%)", "distance from start"]
        expected = (record.lr, 100 * record.metrics["error"], record.distance)
        for panel, values in zip((highest, middle, lowest), expected, strict=True):
            line = next(line for line in panel.lines if len(line.get_xdata()) == 41)
            assert line.get_ydata() == pytest.approx(values.numpy())
            dots = panel.lines[-1]
            assert dots.get_label() == "members"
            assert list(dots.get_xdata()) == record.members.tolist()
            at = [record.step.tolist().index(step) for step in record.members.tolist()]
            assert dots.get_ydata() == pytest.approx(values.numpy()[at])
            marks = [line for line in panel.lines if line.get_linestyle() == ":"]
            assert [line.get_xdata()[0] for line in marks] == record.ends.tolist()

    def test_panels_lie_above_one_another(self):
        lowest = cycles(series())
        lowest.figure.draw_without_rendering()
        boxes = [axes.get_window_extent() for axes in (lowest, *lowest.child_axes)]
        assert boxes[0].y1 < boxes[1].y0 < boxes[1].y1 < boxes[2].y0
        assert np.ptp([box.x0 for box in boxes]) < 1

    def test_another_metric_is_refused(self):
        assert cycles(series(), metric="nll").child_axes[0].get_ylabel().startswith("test negative")
        with pytest.raises(ConfigError, match="expected one of the record's, error, nll, got 'x'"):
            cycles(series(), metric="x")
