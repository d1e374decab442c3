"""Coordinates of training: stratified, and functions of their numbers."""

import torch

import lowland as ll
from lowland.train.coordinates import STRATA, CoordinateStream


def test_samples_are_stratified_and_numbered():
    curve = ll.Bezier.between(torch.zeros(4), torch.ones(4))
    coordinates = CoordinateStream(curve, seed=0)
    parts = []
    for first in range(0, 2 * STRATA, 3):
        coords, coefficients = coordinates.at(first, 3)
        assert torch.equal(coefficients, curve.coefficients(coords))
        parts.append(coords)
    t = torch.cat(parts)[:, 0]
    for block in t[: 2 * STRATA].split(STRATA):
        assert sorted((block * STRATA).int().tolist()) == list(range(STRATA))
    across = CoordinateStream(curve, seed=0).at(60, 3 * STRATA)[0][:, 0]  # of four blocks
    assert torch.equal(across[: len(t) - 60], t[60:])
    assert not torch.equal(CoordinateStream(curve, seed=1).at(0, 3)[0][:, 0], t[:3])
