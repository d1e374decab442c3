"""Weighted means against NumPy, and what becomes of buffers."""

import numpy as np
import torch

from lowland.averaging.weighted_mean import WeightedMean, weighted_mean
from lowland.core import Point


def points(n: int = 4) -> list[Point]:
    generator = torch.Generator().manual_seed(0)
    return [
        Point(
            torch.randn(5, generator=generator),
            {"mu": torch.tensor([float(i), 2.0]), "steps": torch.tensor(10 * i)},
        )
        for i in range(n)
    ]


def test_the_mean_is_that_of_numpy_in_float64() -> None:
    several = points()
    rows = np.stack([p.weights.double().numpy() for p in several])
    for weights in ([1.0, 2.0, 0.5, 3.0], [2.0, -1.0, 0.25, -0.125]):
        mean = weighted_mean(several, weights)
        expected = np.average(rows, axis=0, weights=weights)
        np.testing.assert_allclose(mean.weights.numpy(), expected, rtol=1e-6)
        assert mean.weights.dtype == torch.float32


def test_many_equal_points_stay_what_they_are() -> None:
    point = Point(torch.tensor([0.1, 1e-30, 3e7]))
    mean = WeightedMean()
    for _ in range(3000):
        mean.add(point, 1 / 3)
    assert torch.equal(mean.point.weights, point.weights)
    assert mean.point.buffers is None


def test_buffers_are_averaged_and_integers_are_those_of_the_largest_weight() -> None:
    mean = weighted_mean(points(), [1.0, 3.0, 3.0, 1.0])
    assert mean.buffers["mu"].tolist() == [1.5, 2.0]
    assert mean.buffers["steps"] == 10  # the first of the two
    # a negative share would make a variance negative
    mean = weighted_mean(points(), [0.0, 1.0, -0.5, 1.0])
    assert mean.buffers["mu"].tolist() == [2.0, 2.0]


def test_a_trial_leaves_the_mean_alone() -> None:
    first, second, *_ = points()
    mean = WeightedMean()
    mean.add(first)
    trial = mean.with_point(second)
    assert torch.equal(mean.point.weights, first.weights)
    assert torch.equal(mean.point.buffers["mu"], first.buffers["mu"])
    expected = (first.weights.double() + second.weights.double()) / 2
    torch.testing.assert_close(trial.point.weights, expected.float())
    assert trial.point.buffers["mu"].tolist() == [0.5, 2.0]
