"""Gaussian likelihoods against torch.distributions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal

import lowland as ll
from tests.core.random_data import randn


@pytest.mark.parametrize("d", [1, 3])
def test_regression_with_a_variance_of_its_own(d) -> None:
    output, target = randn(6, 2 * d), randn(6, d)
    mean, variance = output[:, :d], F.softplus(output[:, d:]) + 1e-6
    expected = -Normal(mean, variance.sqrt()).log_prob(target).sum(1)
    torch.testing.assert_close(ll.Regression().nll(output, target), expected)


@pytest.mark.parametrize("d", [1, 3])
def test_regression_with_a_fixed_variance(d) -> None:
    output, target = randn(6, d), randn(6, d)
    expected = -Normal(output, math.sqrt(0.3)).log_prob(target).sum(1)
    task = ll.Regression(noise_variance=0.3)
    torch.testing.assert_close(task.nll(output, target), expected)
    assert task.count((output, target)) == 6


@pytest.mark.parametrize("homoscedastic", [True, False])
def test_gaussian_head(homoscedastic) -> None:
    net = nn.Linear(4, 2)
    head = ll.GaussianHead(net, homoscedastic=homoscedastic, noise_variance=0.25)
    x = randn(6, 4)
    raw = net(x)
    noise = F.softplus(head.rho) + 1e-6
    torch.testing.assert_close(noise, torch.tensor(0.25 + 1e-6))
    if homoscedastic:
        mean, variance = raw, noise.expand_as(raw)
    else:
        mean, variance = raw[:, :1], F.softplus(raw[:, 1:]) + noise
    target = randn(6, mean.shape[1])
    expected = -Normal(mean, variance.sqrt()).log_prob(target).sum(1)
    task = ll.Regression("learned")
    torch.testing.assert_close(task.nll(head(x), target), expected)
    # rho is a part of w, and its derivative is correct
    surface = ll.LossSurface(head, task, [(x, target)])
    w = surface.layout.flatten(head)
    assert "rho" in surface.layout.names
    step = torch.zeros_like(w, dtype=torch.float64)
    step[surface.layout.names.index("rho")] = 1e-3
    slope = (surface((w + step).float()) - surface((w - step).float())) / 2e-3
    gradient = surface.value_and_grad(w)[1]
    assert float(gradient[0]) == pytest.approx(float(slope), rel=1e-2)


def test_gaussian_head_of_an_odd_number_of_outputs() -> None:
    mean, variance = ll.GaussianHead(nn.Linear(4, 3))(randn(2, 4)).chunk(2, 1)
    assert mean.shape == variance.shape == (2, 3)
    torch.testing.assert_close(variance, torch.full((2, 3), 0.1 + 1e-6))


@pytest.mark.parametrize(
    ("output", "target"),
    [((5, 1), (5,)), ((5,), (5, 1)), ((5, 1), (5, 2)), ((5, 1), (1, 1)), ((5, 1, 1), (5, 1))],
)
def test_regression_never_broadcasts(output, target) -> None:
    with pytest.raises(ll.DataError, match=r"expected (targets|outputs)"):
        ll.Regression(noise_variance=1.0).nll(torch.zeros(output), torch.zeros(target))
    # broken twin: torch broadcasts all of these but the first two
    assert torch.broadcast_shapes(output, target)


def test_regression_errors_say_what_to_do() -> None:
    with pytest.raises(ll.DataError, match="GaussianHead"):
        ll.Regression().nll(torch.zeros(5, 3), torch.zeros(5, 1))
    with pytest.raises(ll.DataError, match=r"use y\[:, None\]"):
        ll.Regression().nll(torch.zeros(5, 2), torch.zeros(5))
    for wrong in (0, -1.0, "fixed", math.inf, math.nan):
        with pytest.raises(ll.ConfigError, match="noise_variance"):
            ll.Regression(wrong)
    with pytest.raises(ll.ConfigError, match="constant target"):
        ll.Regression(target_std=0.0)
    with pytest.raises(ll.DataError, match="drop those examples"):
        ll.Regression().check(torch.zeros(1, 2), torch.tensor([[torch.nan]]))


def test_learned_variance_without_its_head_is_an_error_not_a_nan() -> None:
    net = nn.Linear(2, 2)
    surface = ll.LossSurface(net, ll.Regression("learned"), [(torch.ones(3, 2), torch.ones(3, 1))])
    with pytest.raises(ll.DataError, match="wrap the model in GaussianHead"):
        surface(torch.full((6,), -1.0))
