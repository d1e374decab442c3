import numpy as np
import pytest
import torch

from lowland.errors import ConfigError, DataError
from lowland.plots import reliability
from lowland.plots.scales import TICKS, stretch, unstretch
from lowland.records import Predictive, Reliability
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
            "many": {f"{i}": record() for i in range(9)},
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


def test_gaps_are_positive_where_the_model_is_too_sure():
    ax = reliability(record(), style="gap")
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0.5, 0.75, 0.95])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.25, 0, 0.05], atol=1e-6)


def test_the_ticks_are_the_papers_and_evenly_spaced():
    ax = reliability(record((0.3, 0.998), (0.3, 0.9), (1, 1)), style="gap")
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == ["0.2", "0.759", "0.927", "0.978", "0.993", "0.998"]
    np.testing.assert_allclose(ax.get_xticks(), [0.2, 0.759, 0.927, 0.978, 0.993, 0.998], atol=5e-4)
    np.testing.assert_allclose(np.diff(stretch(TICKS)), 1.2)
    np.testing.assert_allclose(unstretch(stretch(TICKS)), TICKS)
    pixels = ax.transData.transform([(tick, 0) for tick in ax.get_xticks()])[:, 0]
    np.testing.assert_allclose(np.diff(pixels), np.diff(pixels)[0])


def test_the_size_of_a_point_follows_its_rows():
    sizes = reliability(record()).collections[0].get_sizes()
    assert list(sizes) == sorted(sizes)
    assert len(set(sizes)) == 3


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ConfigError, match="style: expected one of diagram, gap, got 'bars'"):
        reliability(record(), style="bars")
    with pytest.raises(DataError, match="holds no reliability"):
        reliability(Predictive("regression", 1))
    with pytest.raises(DataError, match="empty dict"):
        reliability({})
