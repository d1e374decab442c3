"""Curves: bends, lengths and even steps of the length."""

import math

import pytest
import torch

import lowland as ll
from tests.geometry.contract import vectors


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
