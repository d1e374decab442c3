"""Polygonal chains: the contract, and their knots."""

import numpy as np
import torch

import lowland as ll
from tests.geometry.contract import CurveContract, vectors


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


def test_knots_of_a_chain_are_its_anchors():
    for bends in (1, 2, 3, 6):
        anchors = vectors(bends + 2)
        chain = ll.PolyChain.between(anchors[0], anchors[-1], bends=bends).with_anchors(anchors)
        knots = torch.tensor(chain.breaks, dtype=torch.float64)
        torch.testing.assert_close(chain(knots), anchors, rtol=1e-6, atol=1e-6)
