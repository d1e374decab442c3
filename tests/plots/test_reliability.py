from itertools import pairwise

import numpy as np
import pytest
import torch

from lowland.errors import ConfigError, DataError
from lowland.plots import reliability
from lowland.plots.scales import TICKS, stretch, unstretch
from lowland.records import Predictive, Reliability
from lowland.scoring import reliability as equal_bins
from tests.plots.contract import FigureContract

NAN = torch.nan


def record(
    confidence=(NAN, 0.5, 0.75, 0.95), accuracy=(NAN, 0.25, 0.75, 0.9), count=(0, 10, 20, 40)
):
    return Reliability(*map(torch.tensor, (confidence, accuracy, count)))


class TestReliability(FigureContract):
    figure = "reliability"

    def record(self):
        return record()

    def odd_records(self):
        return {
            "all bins empty": record((NAN, NAN), (NAN, NAN), (0, 0)),
            "one bin": record((0.5,), (1.0,), (3,)),
            "certain": record((NAN, 1.0), (NAN, 1.0), (0, 5)),
            "many": {f"{i}": record(accuracy=(NAN, 0.1 * i, 1.0, 1.0)) for i in range(9)},
            "equal": {f"method {i}": record() for i in range(9)},
        }


class TestGaps(TestReliability):
    def draw(self, record, **options):
        return super().draw(record, style="gap", **options)


def test_the_diagram_shows_accuracy_gaps_and_counts():
    ax = reliability(record())
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0.5, 0.75, 0.95])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.25, 0.75, 0.9])
    gaps, rows = ax.containers
    np.testing.assert_allclose([b.get_y() for b in gaps], [0.5, 0.75, 0.95])
    np.testing.assert_allclose([b.get_height() for b in gaps], [-0.25, 0, -0.05], atol=1e-6)
    np.testing.assert_allclose([b.get_height() for b in rows], [0, 0.0625, 0.125, 0.25])
    np.testing.assert_allclose([b.get_x() for b in rows], [0, 0.25, 0.5, 0.75])


def test_several_are_overlaid_with_their_errors():
    modest = Predictive(
        "classification", 2, reliability=vars(record(accuracy=(NAN, 1.0, 1.0, 1.0)))
    )
    ax = reliability({"SGD": record(), "SWAG": modest})
    assert not ax.containers
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [1.0, 1.0, 1.0])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        f"SGD (ECE {record().ece:.3f})",
        f"SWAG (ECE {(0.5 * 10 + 0.25 * 20 + 0.05 * 40) / 70:.3f})",
    ]


def test_equal_curves_are_one_with_both_names():
    ax = reliability({"SGD": record(), "SWA": record()}, ece={"SGD": 0.125, "SWA": 0.125})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["SGD = SWA (ECE 0.125)"]
    ax = reliability({"SGD": record(), "SWA": record()}, ece={"SGD": 0.125, "SWA": 0.25})
    assert len(ax.get_legend().get_texts()) == 2


def test_gaps_are_positive_where_the_model_is_too_sure():
    ax = reliability(record(), style="gap")
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0.5, 0.75, 0.95])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.25, 0, 0.05], atol=1e-6)


def test_the_ticks_are_round_and_spread_high_confidences_out():
    ax = reliability(record((0.3, 0.998), (0.3, 0.9), (1, 1)), style="gap")
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == ["0.2", "0.5", "0.8", "0.9", "0.95", "0.98", "0.99", "0.995", "0.998"]
    assert "−log(1 − confidence)" in ax.get_xlabel()
    np.testing.assert_allclose(ax.get_xticks(), [float(label) for label in labels])
    np.testing.assert_allclose(unstretch(stretch(TICKS)), TICKS)
    pixels = ax.transData.transform([(x, 0) for x in (0.5, 0.75, 0.875, 0.9375)])[:, 0]
    np.testing.assert_allclose(np.diff(pixels), np.diff(pixels)[0])  # halves of 1 - confidence


def test_the_labels_of_ticks_do_not_overlap():
    ax = reliability(record((0.3, 0.9999), (0.3, 0.9), (1, 1)), style="gap")
    ax.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert min(right.x0 - left.x1 for left, right in pairwise(boxes)) > 4  # pixels: no single word


@pytest.mark.parametrize("style", ["diagram", "gap"])
@pytest.mark.parametrize("accuracy", [(NAN, 0.25, 0.5, 0.9), (NAN, 0.75, 0.9, 1.0)])
def test_the_sides_say_what_they_are(style, accuracy):
    ax = reliability(record(accuracy=accuracy), style=style)
    at = {
        text.get_text(): ax.transData.inverted().transform(
            ax.transAxes.transform(text.get_position())
        )
        for text in ax.texts
    }
    assert set(at) == {"overconfident", "underconfident"}
    for words, (x, y) in at.items():
        over = y > 0 if style == "gap" else y < x  # below the diagonal
        assert over == (words == "overconfident")
        low, high = ax.get_ylim()
        assert low < y < high


def test_bins_of_equal_count_have_no_histogram():
    probs = torch.linspace(0.5, 1, 100)
    several = torch.stack([probs, 1 - probs], 1)
    masses = equal_bins(several, torch.zeros(100, dtype=torch.int64), bins=5, equal="count")
    gaps, *rest = reliability(masses).containers
    assert not rest
    np.testing.assert_allclose([b.get_y() for b in gaps], masses.confidence.numpy(), atol=1e-6)


def test_the_size_of_a_point_follows_its_rows():
    sizes = reliability(record()).collections[0].get_sizes()
    assert list(sizes) == sorted(sizes)
    assert len(set(sizes)) == 3


def test_what_cannot_be_drawn_raises():
    with pytest.raises(ConfigError, match="style: expected one of diagram, gap, got 'bars'"):
        reliability(record(), style="bars")
    with pytest.raises(DataError, match="holds no reliability"):
        reliability(Predictive("regression", 1))
    with pytest.raises(DataError, match="empty dict"):
        reliability({})
