"""A log density of many points, and its gradient."""

from __future__ import annotations

import math

import pytest
import torch

from lowland.errors import ConfigError
from lowland.samplers import Density
from tests.samplers.contract import linear


def test_a_density_without_gradients():
    density = Density(lambda z: torch.from_numpy(-(z.detach().numpy()[:, 0] ** 2)), 1)
    with pytest.raises(ConfigError, match="give gradient="):
        density.value_and_grad(torch.zeros(2, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior_scale": 0.0}, "prior_scale"),
        ({"prior_scale": -1.0}, "prior_scale"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
    ],
)
def test_a_density_that_makes_no_sense(options, message):
    with pytest.raises(ConfigError, match=message):
        Density(lambda z: z.sum(1), 2, **options)


def test_gradients_of_a_density():
    density, mean, covariance, _ = linear(3, 2.0)
    z = torch.randn(5, 3, dtype=torch.float64)
    value, gradient = density.value_and_grad(z)
    assert torch.allclose(value, density(z))
    exact = -(z - mean) @ torch.linalg.inv(covariance)
    assert torch.allclose(gradient, exact, atol=1e-9)


def test_a_density_that_mixes_points_up():
    with pytest.raises(ConfigError, match="many points"):
        Density(lambda z: z.sum(), 2)(torch.zeros(3, 2))
