"""All mass on one weight vector."""

import pytest
import torch

from lowland import LowlandError, Point, PointMass
from tests.posteriors.contract import PosteriorContract


class TestPointMass(PosteriorContract):
    random = False

    def make(self, size, dtype):
        return PointMass(torch.linspace(-1, 1, size, dtype=dtype))


def test_every_draw_is_the_point_with_its_buffers():
    point = Point(torch.ones(2), {"mean": torch.zeros(1)})
    for i, seed in ((0, 0), (7, 3)):
        assert PointMass(point).point(i, seed=seed) is point


def test_a_point_has_no_density():
    with pytest.raises(LowlandError, match="no density"):
        PointMass(torch.zeros(2)).log_prob(torch.zeros(2))
