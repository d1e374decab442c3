"""Scales: logarithmic in plain numbers, and confidences with their high end spread out."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from lowland.plots.scales import NEAREST, TICKS, confidence_ticks, log_ticks, stretch, unstretch


@pytest.mark.parametrize("which", ["x", "y"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [((1.0, 30.0), ["1", "2", "5", "10", "20"]), ((1e-3, 1e3), ["0.001", "0.01", "0.1", "1", "10",
                                                               "100", "1000"])],
)  # fmt: skip
def test_logarithms_have_plain_numbers(which, values, expected):
    figure = Figure()
    ax = figure.add_subplot()
    log_ticks(ax, which, np.array(values))
    ax.set(**{f"{which}lim": values})
    figure.draw_without_rendering()
    axis = getattr(ax, f"{which}axis")
    assert getattr(ax, f"get_{which}scale")() == "log"
    low, high = values
    places = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
    assert [t.get_text() for at, t in places if low <= at <= high] == expected
    assert not any(label.get_text() for label in axis.get_minorticklabels())


def test_stretching_and_its_inverse():
    np.testing.assert_allclose(stretch([0.5, 0.75, 0.875]), np.log([2, 4, 8]))
    np.testing.assert_allclose(unstretch(stretch(TICKS)), TICKS)
    assert np.isfinite(stretch([1.0, 1.5])).all()
    assert (np.diff(stretch(np.linspace(0, NEAREST, 50))) > 0).all()


def test_a_narrow_logarithmic_scale_has_few_ticks():
    ax = Figure().subplots()
    ax.plot([0.03, 0.092], [1, 2])
    log_ticks(ax, "x", np.array([0.03, 0.092]))
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert 2 <= len(ticks) <= 5


def test_ticks_of_confidences_are_those_in_sight():
    ax = Figure().add_subplot()
    confidence_ticks(ax, np.array([0.6, 0.97]))
    low, high = ax.get_xlim()
    ticks = ax.get_xticks()
    assert set(ticks) <= set(TICKS)
    assert low < min(0.6, ticks.min())
    assert high > max(0.97, ticks.max())
    assert [label.get_text() for label in ax.get_xticklabels()] == [f"{t:g}" for t in ticks]
    confidence_ticks(ax, np.array([]))  # bins without an example
    assert np.isfinite(ax.get_xlim()).all()
