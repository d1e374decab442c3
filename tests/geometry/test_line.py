"""Lines: the contract, and closed forms."""

import pytest
import torch

import lowland as ll
from tests.geometry.contract import CurveContract, vectors


class TestLine(CurveContract):
    def make(self, dtype=torch.float32):
        return ll.Line(*vectors(2, dtype))

    def by_hand(self, shape, coords):
        a, b = shape.anchors.double()
        return a + coords * (b - a)


def test_a_line_takes_no_bends_and_only_curves_have_lengths():
    w0, w1, w2 = vectors(3)
    with pytest.raises(ll.ConfigError, match="a line has none, got 2"):
        ll.Line.between(w0, w1, bends=2)
    with pytest.raises(ll.LowlandError, match="a Plane has no length"):
        ll.Plane.through(w0, w1, w2).length()


def test_nearest_on_a_line_in_closed_form():
    line = ll.Line(torch.zeros(2), torch.tensor([4.0, 0.0]))
    t, far = line.coords_of(torch.tensor([[1.0, 2.0], [-3.0, 4.0], [9.0, 0.0]]))
    assert t[:, 0].tolist() == pytest.approx([0.25, 0, 1], abs=1e-7)
    assert far.tolist() == pytest.approx([2, 5, 5])
