"""Bezier curves: the contract, against de Casteljau's construction."""

import itertools

import pytest
import torch

import lowland as ll
from tests.geometry.contract import CurveContract, vectors


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


def test_a_sharp_turn_has_one_length():
    a, b = torch.zeros(2, dtype=torch.float64), torch.tensor([1e-3, 0.0], dtype=torch.float64)
    bend = torch.tensor([5.0, 0.0], dtype=torch.float64)
    curve = ll.Bezier.between(a, b).with_anchors(torch.stack([a, bend, b]))
    assert float(curve.length_to([1.0])[0]) == pytest.approx(curve.length(), rel=1e-9)
