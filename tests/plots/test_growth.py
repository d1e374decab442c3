import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from lowland.errors import DataError
from lowland.plots import growth
from lowland.records import GrowthResult
from tests.plots.contract import FigureContract, assert_readable


def growth_record(n=4, *, rejected=False, scale=1.0, bound=0.5, **options):
    count = torch.arange(n, dtype=torch.float64)
    accepted = torch.ones(n, dtype=torch.bool)
    accepted[-1] = not rejected
    none = torch.tensor([math.nan])
    return GrowthResult(
        torch.arange(1, n + 1),
        log_volume=torch.cat([none, 3 * count[1:]]),
        height=torch.cat([none, 9 - count[1:]]),
        loss_mean=scale * (0.2 + 0.02 * count),
        loss_max=scale * (0.3 + 0.05 * count),
        accepted=accepted,
        samples=20,
        bound=bound,
        **options,
    )


class TestGrowth(FigureContract):
    figure = "growth"

    def record(self):
        return growth_record(
            rejected=True, stop_reason="the loss at the highest point, 0.7, is above the bound"
        )

    def odd_records(self):
        endless = growth_record()
        endless.loss_max[-1] = math.inf
        return {
            "one vertex": growth_record(1),
            "no bound": growth_record(bound=math.nan, unit="connectors"),
            "several": {
                "seed 0": growth_record(),
                "seed 1": growth_record(5, rejected=True, scale=40, stop_reason="no room left"),
                "seed 2": growth_record(3, bound=2.0),
            },
            "a loss without end": endless,
            "nothing finite": growth_record(2, scale=math.nan, bound=math.nan),
            "many words": growth_record(stop_reason="words " * 60),
        }


def dots(ax, face):
    """Where markers of a colour are: "white", or any other for None."""
    found = []
    for line in ax.lines:
        if line.get_linestyle() == "None" and (line.get_markerfacecolor() == "white") == (
            face == "white"
        ):
            found += line.get_xydata().tolist()
    return found


def test_panels_hold_the_columns():
    record = growth_record()
    below = growth(record)
    (above,) = below.child_axes
    np.testing.assert_allclose(above.lines[0].get_xydata()[1:, 1], record.log_volume[1:])
    lines = {line.get_label(): line for line in below.lines}
    np.testing.assert_allclose(lines["mean"].get_ydata(), record.loss_mean)
    np.testing.assert_allclose(lines["highest"].get_ydata(), record.loss_max)
    np.testing.assert_allclose(lines["mean"].get_xdata(), record.vertices)
    assert above.get_shared_x_axes().joined(above, below)
    assert (below.get_xlabel(), below.get_ylabel()) == ("vertices", "loss (nats)")
    dashed = [list(line.get_ydata()) for line in below.lines if line.get_linestyle() == "--"]
    assert [0.5, 0.5] in dashed
    assert below.get_yscale() == "linear"
    assert growth({"a": growth_record(), "b": growth_record(scale=100)}).get_yscale() == "log"


def test_a_vertex_that_was_rejected_is_hollow():
    record = growth_record(rejected=True)
    below = growth(record)
    mean, most = record.loss_mean[-1].item(), record.loss_max[-1].item()
    assert dots(below, "white") == [[4, pytest.approx(mean)], [4, pytest.approx(most)]]
    assert dots(below.child_axes[0], "white") == [[4, 9]]
    assert dots(growth(growth_record()), "white") == []
    words = [text.get_text() for text in below.get_legend().get_texts()]
    assert words == ["mean", "highest", "bound 0.5", "rejected"]


def test_words_say_why_it_stopped():
    texts = [text.get_text() for text in growth(growth_record(stop_reason="it is full.")).texts]
    assert texts == ["stopped: it is full; losses of 20 random points a step"]
    both = growth({"a": growth_record(stop_reason="full"), "b": growth_record()})
    assert both.texts[0].get_text().startswith("a: full")
    assert [t.get_text() for t in both.child_axes[0].get_legend().get_texts()] == ["a", "b"]


def test_the_panels_share_the_place_of_the_users_axes():
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    assert growth(growth_record(), ax=left) is left
    right.plot([0, 1])
    figure.canvas.draw()
    (above,) = left.child_axes
    low, high, other = (ax.get_window_extent() for ax in (left, above, right))
    assert low.y1 < high.y0
    assert high.y1 <= other.y1 + 1
    assert (low.x0, low.x1) == pytest.approx((high.x0, high.x1))
    assert low.x1 < other.x0
    assert_readable(left)


def test_without_steps_it_raises():
    with pytest.raises(DataError, match="has no steps"):
        growth(GrowthResult(*[torch.zeros(0)] * 6))


def test_the_table_and_what_was_reached():
    record = growth_record(rejected=True, metrics={"test_error_mean": torch.arange(4) / 8})
    assert record.final_count == 3
    assert growth_record(1).final_count == 1
    assert GrowthResult(*[torch.zeros(0)] * 6).final_count == 0
    rows = list(record.table().rows())
    assert rows[3]["accepted"] is False
    assert rows[3] == pytest.approx(
        {
            "vertices": 4,
            "log_volume": 9.0,
            "height": 6.0,
            "loss_mean": 0.26,
            "loss_max": 0.45,
            "accepted": False,
            "test_error_mean": 0.375,
        }
    )
