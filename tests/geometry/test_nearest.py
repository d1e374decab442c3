"""The nearest point of a simplex, against non-negative least squares."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

import lowland as ll
from lowland.geometry.nearest import nearest
from tests.geometry.contract import barycentric, vectors


def test_the_nearest_point_is_the_one_that_least_squares_finds():
    for seed in range(60):
        vertices = 2 + seed % 7
        points = vectors(vertices, torch.float64, size=9, seed=seed)
        w = 0.5 * vectors(1, torch.float64, size=9, seed=1000 + seed)[0]
        if seed % 3 == 0:
            w = points.mean(0)  # inside
        weights = nearest((points - w) @ (points - w).T)
        assert bool((weights >= 0).all())
        assert float(weights.sum()) == pytest.approx(1)
        far = float((weights @ points - w).norm())
        heavy = 1e5  # non-negative least squares, with a heavy row for the sum
        system = np.vstack([(points - w).T.numpy(), heavy * np.ones(vertices)])
        expected, _ = scipy.optimize.nnls(system, np.append(np.zeros(9), heavy))
        expected = torch.from_numpy(expected / expected.sum())
        assert far <= float((expected @ points - w).norm()) + 1e-9
        torch.testing.assert_close(weights, expected, rtol=0, atol=1e-5)


def test_many_vertices_have_a_nearest_point_too():
    points = vectors(100, torch.float64, size=2000)
    truth = barycentric(1, 100)[0]
    truth[::2] = 0
    truth = truth / truth.sum()
    w = truth @ points
    torch.testing.assert_close(nearest((points - w) @ (points - w).T), truth, rtol=0, atol=1e-9)


@pytest.mark.parametrize("gap", [0.0, 1e-14, 1e-12, 1e-10, 1e-8])
def test_vertices_that_are_nearly_one_have_a_nearest_point(gap):
    for seed in range(20):
        points = vectors(6, torch.float64, size=9, seed=seed)
        points[3] = points[1] + gap * points[2]
        points[5] = points[0] - gap * points[4]
        w = 0.3 * vectors(1, torch.float64, size=9, seed=500 + seed)[0]
        weights = nearest((points - w) @ (points - w).T)
        apart = points[[0, 1, 2, 4]]
        expected = nearest((apart - w) @ (apart - w).T)
        far, least = ((c @ p - w).norm() for c, p in ((weights, points), (expected, apart)))
        assert float(far) == pytest.approx(float(least), abs=1e-6)
    with pytest.raises(ll.NonFiniteError, match="have no nearest point"):
        nearest(torch.full((2, 2), math.nan).double())
