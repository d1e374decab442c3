import numpy as np
import torch

from lowland.plots import barrier
from lowland.records import BarrierResult
from tests.plots.contract import FigureContract

T = torch.linspace(0, 1, 11, dtype=torch.float64)


def record(height=1.0, **fields):
    loss = fields.pop("loss", 0.5 + T + height * 4 * T * (1 - T))
    return BarrierResult(T, loss, loss / 4, distance=2.0)


class TestBarrier(FigureContract):
    figure = "barrier"

    def record(self):
        return record()

    def odd_records(self):
        return {
            "none": record(0.0),
            "a bowl": record(-1.0),
            "two": {"before": record(), "aligned": record(0.1)},
            "gaps": record(loss=torch.tensor([1.0, torch.nan, torch.inf, *[1.0] * 8])),
        }


def test_the_chord_joins_the_ends_and_the_height_is_reported():
    ax = barrier(record())
    loss, chord = ax.lines[:2]
    np.testing.assert_allclose(loss.get_ydata(), record().loss)
    np.testing.assert_allclose(chord.get_xydata(), [[0, 0.5], [1, 1.5]])
    assert ax.get_legend().get_texts()[0].get_text() == "barrier 1"
    (arrow,) = ax.texts  # from the chord to the top, at t = 1/2
    np.testing.assert_allclose([arrow.xy, arrow.xyann], [[0.5, 1.0], [0.5, 2.0]])
    assert not barrier(record(-1.0)).texts
    both = barrier({"a": record(), "b": record(2.0)})
    assert [t.get_text() for t in both.get_legend().get_texts()] == ["a, barrier 1", "b, barrier 2"]
