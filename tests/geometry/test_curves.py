"""Line, Bezier curve and polygonal chain: the contract, and what is their own."""

import itertools
import math

import numpy as np
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


class TestBezier(CurveContract):
    bends = 1

    def make(self, dtype=torch.float32):
        anchors = vectors(self.bends + 2, dtype)
        curve = ll.Bezier.between(anchors[0], anchors[-1], bends=self.bends)
        return curve.with_anchors(anchors)

    def by_hand(self, shape, coords):  # de Casteljau's construction, not Bernstein's polynomials
        points = [anchor.expand(len(coords), -1) for anchor in shape.anchors.double()]
        while len(points) > 1:
            points = [(1 - coords) * a + coords * b for a, b in itertools.pairwise(points)]
        return points[0]


class TestBezierOfThreeBends(TestBezier):
    bends = 3


class TestPolyChain(CurveContract):
    bends = 1

    def make(self, dtype=torch.float32):
        anchors = vectors(self.bends + 2, dtype)
        chain = ll.PolyChain.between(anchors[0], anchors[-1], bends=self.bends)
        return chain.with_anchors(anchors)

    def by_hand(self, shape, coords):
        knots = np.linspace(0, 1, len(shape.anchors))
        rows = []
        for t in coords[:, 0].tolist():
            j = int(np.clip(np.searchsorted(knots, t, side="right") - 1, 0, len(knots) - 2))
            share = (t - knots[j]) / (knots[j + 1] - knots[j])
            a, b = shape.anchors[j].double(), shape.anchors[j + 1].double()
            rows.append((1 - share) * a + share * b)
        return torch.stack(rows)


class TestPolyChainOfThreeBends(TestPolyChain):
    bends = 3


@pytest.mark.parametrize("kind", [ll.Bezier, ll.PolyChain])
def test_bends_start_evenly_on_the_chord(kind):
    w0, w1 = vectors(2, torch.float64)
    for bends in (1, 2, 4):
        curve = kind.between(w0, w1, bends=bends)
        share = torch.linspace(0, 1, bends + 2, dtype=torch.float64)[:, None]
        torch.testing.assert_close(curve.anchors, w0 + share * (w1 - w0))
        line = ll.Line(w0, w1)
        torch.testing.assert_close(curve([0.1, 0.5, 0.8]), line([0.1, 0.5, 0.8]))
        assert curve.length() == pytest.approx(line.length())
    for bends in (0, -1):
        with pytest.raises(ll.ConfigError, match=rf"from 1 to 10,000, got {bends}; .*ll\.Line"):
            kind.between(w0, w1, bends=bends)


def test_knots_of_a_chain_are_its_anchors():
    for bends in (1, 2, 3, 6):
        anchors = vectors(bends + 2)
        chain = ll.PolyChain.between(anchors[0], anchors[-1], bends=bends).with_anchors(anchors)
        knots = torch.tensor(chain.breaks, dtype=torch.float64)
        torch.testing.assert_close(chain(knots), anchors, rtol=1e-6, atol=1e-6)


def test_lengths_in_closed_form():
    w0, w1 = vectors(2, torch.float64)
    assert ll.Line(w0, w1).length() == pytest.approx(float((w1 - w0).norm()), rel=1e-14)
    anchors = vectors(5, torch.float64)
    chain = ll.PolyChain.between(w0, w1, bends=3).with_anchors(anchors)
    pieces = (anchors[1:] - anchors[:-1]).norm(dim=1)
    assert chain.length() == pytest.approx(float(pieces.sum()), rel=1e-14)
    chords = (anchors[-1] - anchors[0]).norm()  # the broken twin
    assert abs(float(chords) / chain.length() - 1) > 0.1
    # the parabola (t, t²) from 0 to 1, whose length is a schoolbook integral
    parabola = ll.Bezier.between(torch.zeros(2).double(), torch.ones(2).double())
    parabola = parabola.with_anchors(torch.tensor([[0.0, 0.0], [0.5, 0.0], [1.0, 1.0]]).double())
    exact = math.sqrt(5) / 2 + math.asinh(2) / 4
    assert parabola.length() == pytest.approx(exact, rel=1e-12)
    half = math.sqrt(2) / 4 + math.asinh(1) / 4
    assert parabola.length_to([0.5, 1.0]).tolist() == pytest.approx([half, exact], rel=1e-12)


def test_even_steps_of_the_length_are_not_even_steps_of_t():
    anchors = vectors(3, torch.float64)
    anchors[1] = anchors[0] + 0.01 * (anchors[1] - anchors[0])  # slow, then fast
    for kind in (ll.Bezier, ll.PolyChain):
        curve = kind.between(anchors[0], anchors[2]).with_anchors(anchors)
        even = torch.linspace(0, 1, 9, dtype=torch.float64)
        done = curve.length_to(curve.at_arc(even)) / curve.length()
        torch.testing.assert_close(done, even, rtol=0, atol=1e-4)
        twin = curve.length_to(even) / curve.length()
        assert float((twin - even).abs().max()) > 0.1


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


def test_a_sharp_turn_has_one_length():
    a, b = torch.zeros(2, dtype=torch.float64), torch.tensor([1e-3, 0.0], dtype=torch.float64)
    bend = torch.tensor([5.0, 0.0], dtype=torch.float64)
    curve = ll.Bezier.between(a, b).with_anchors(torch.stack([a, bend, b]))
    assert float(curve.length_to([1.0])[0]) == pytest.approx(curve.length(), rel=1e-9)
