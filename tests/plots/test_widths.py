import numpy as np
import pytest
import torch

from lowland.errors import ConfigError
from lowland.plots import widths
from lowland.records import WidthsResult
from tests.plots.contract import FigureContract

T = torch.linspace(0, 2, 11).double()


def record(curvature=1.0, directions="filter-normalised", **metrics):
    curvatures = curvature * torch.tensor([1.0, 2.0]).double()
    loss = 0.1 + curvatures[:, None] * T**2 / 2
    width = (2 * 0.5 / curvatures).sqrt()
    one = torch.ones(2).double()
    return WidthsResult(directions, T, {"loss": loss, **metrics}, width, 0.001, 0.5, one, 0.1, 0.0)


class TestWidths(FigureContract):
    figure = "widths"

    def record(self):
        return record()

    def odd_records(self):
        gaps = record()
        gaps.metrics["loss"][0, 5:] = torch.inf
        gaps.width[0] = torch.inf
        return {
            "two": {"SGD": record(9.0), "SWA": record()},
            "gaps": gaps,
            "given": record(directions="given"),
        }


def test_rays_are_thin_their_mean_is_thick_and_dots_are_the_widths():
    ax = widths(record())
    one, two, mean, level, *dots = ax.lines
    loss = record().metrics["loss"].numpy()
    np.testing.assert_allclose([one.get_ydata(), two.get_ydata()], loss)
    np.testing.assert_allclose(mean.get_ydata(), loss.mean(0))
    assert mean.get_linewidth() > one.get_linewidth()
    assert level.get_ydata()[0] == 0.6
    np.testing.assert_allclose([dot.get_xydata()[0] for dot in dots], [[1, 0.6], [0.5**0.5, 0.6]])


def test_given_directions_have_a_colour_each_and_no_mean():
    ax = widths(record(directions="given"))
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["direction 1", "direction 2"]
    one, two, _, *dots = ax.lines
    assert [dot.get_color() for dot in dots] == [one.get_color(), two.get_color()]
    assert one.get_color() != two.get_color()


def test_axes_have_the_units_of_the_rays_and_the_metric():
    error = {"test_error": record().metrics["loss"] / 10}
    ax = widths(record(directions="plain", **error), metric="test_error")
    assert ax.get_xlabel() == "distance from w"
    assert ax.get_ylabel() == "test error (fraction)"
    assert len(ax.lines) == 3  # no widths on an error
    assert widths(record()).get_xlabel() == "t, filter-normalised rays"


def test_what_cannot_be_drawn_raises():
    with pytest.raises(ConfigError, match="expected one of loss, got 'error'"):
        widths(record(), metric="error")
    with pytest.raises(ConfigError, match="different kinds, given, plain"):
        widths({"a": record(directions="plain"), "b": record(directions="given")})
