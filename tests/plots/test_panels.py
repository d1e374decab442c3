"""Several panels in the place of one: where they stand, whatever the layout does."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lowland.plots.panels import align_labels, panels

BOXES = [(0.0, 0.0, 0.4, 1.0), (0.5, 0.0, 0.5, 0.4), (0.5, 0.6, 0.5, 0.4)]


def render(figure):
    FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize("place", [(0.1, 0.1, 0.8, 0.8), (0.5, 0.2, 0.3, 0.6)])
def test_each_panel_fills_its_box(place):
    figure = Figure()
    ax = figure.add_axes(place)
    axes = panels(ax, BOXES)
    render(figure)
    assert axes[0] is ax
    assert axes[1:] == list(ax.child_axes)
    x, y, wide, high = place
    for panel, (left, low, w, h) in zip(axes, BOXES, strict=True):
        box = panel.get_window_extent().transformed(figure.transFigure.inverted())
        np.testing.assert_allclose(
            box.bounds, (x + left * wide, y + low * high, w * wide, h * high), atol=1e-3
        )


def test_panels_follow_a_layout_and_share_an_axis():
    figure = Figure(layout="constrained")
    ax, other = figure.subplots(1, 2)
    other.set_ylabel("a label\nof several\nlines")
    low, high = panels(ax, [(0, 0, 1, 0.4), (0, 0.6, 1, 0.4)], sharex=ax)
    high.set_xlim(3, 5)
    render(figure)
    assert low.get_xlim() == (3, 5)
    assert low.get_window_extent().y1 < high.get_window_extent().y0
    assert low.get_window_extent().x1 < other.get_window_extent().x0


def test_labels_above_one_another_stand_in_one_line():
    figure = Figure()
    low, high = panels(figure.add_subplot(), [(0, 0, 1, 0.4), (0, 0.6, 1, 0.4)])
    low.set(ylim=(0, 1e-7), ylabel="small")
    high.set(ylim=(0, 123_456), ylabel="large")
    render(figure)
    before = [ax.yaxis.label.get_window_extent().x1 for ax in (low, high)]
    assert before[0] != pytest.approx(before[1], abs=1)
    align_labels([low, high])
    render(figure)
    after = [ax.yaxis.label.get_window_extent().x1 for ax in (low, high)]
    assert after[0] == pytest.approx(after[1], abs=1)
