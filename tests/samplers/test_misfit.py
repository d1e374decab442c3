"""Fits that Pareto's k passes, and what sees them."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from lowland.samplers import Density, Job, Variational
from lowland.samplers.elbo import pareto_khat
from lowland.samplers.misfit import KHAT, shifts, warn_if_far
from tests.samplers.contract import linear

N = 2048  # what a fit draws


def gaussians(seed, *, k=10, shift=0.0, sd=1.0):
    """Draws of q = N(0, 1), and their ratios to p = N(shift, sd²) in the first coordinate."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(N, k, generator=generator, dtype=torch.float64)
    x = z[:, 0]
    return z, -0.5 * ((x - shift) / sd) ** 2 - math.log(sd) + 0.5 * x**2


def warns(z, ratios):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_if_far(z, ratios, pareto_khat(ratios), "vi")
    return [str(one.message) for one in caught]


def test_weighted_moments_and_their_errors_in_closed_form():
    off = []
    for seed in range(50):
        z, ratios = gaussians(seed, k=2, shift=0.3, sd=0.9)
        change, error = shifts(z, ratios)
        # of the coordinate that p and q share nothing changes
        truth = torch.tensor([[0.3, 0.0], [0.3**2 + 0.9**2 - 1, 0.0]], dtype=torch.float64)
        off.append((change - truth) / error)
    off = torch.stack(off)
    assert off.mean(0).abs().max() < 0.7
    assert float(off.std(0).min()) > 0.6
    assert float(off.std(0).max()) < 1.4


@pytest.mark.parametrize(
    ("misfit", "least"),
    [({"shift": 0.5}, 40), ({"shift": -0.4}, 40), ({"shift": 0.3, "sd": 0.8}, 35)],
)
def test_a_mean_that_is_off_is_seen_where_khat_is_low(misfit, least):
    seen = passed = 0
    for seed in range(40):
        z, ratios = gaussians(seed, **misfit)
        passed += pareto_khat(ratios) < KHAT
        seen += any("mean of coordinate 0 moves by" in text for text in warns(z, ratios))
    assert passed == 40  # the diagnostic alone
    assert seen >= least


@pytest.mark.parametrize("misfit", [{}, {"shift": 0.05}, {"sd": 0.95}, {"shift": 0.05, "sd": 0.97}])
def test_no_false_alarm_of_a_fit_that_is_near(misfit):
    assert not any(warns(*gaussians(seed, **misfit)) for seed in range(100))


def test_fits_of_gaussians_do_not_warn():
    for seed in range(3):
        Variational().run(linear(5, 1.0, seed=seed)[0], Job(chains=1, samples=2, seed=seed))


Y = torch.tensor([28, 8, -3, 7, -1, 1, 18, 12], dtype=torch.float64)
SIGMA = torch.tensor([15, 10, 16, 11, 9, 11, 10, 18], dtype=torch.float64)


def eight_schools(z):
    """Rubin 1981, centred: theta ~ N(mu, tau²), mu ~ N(0, 5²), tau ~ half-Cauchy(5), in log tau."""
    theta, mu, log_tau = z[:, :8], z[:, 8], z[:, 9]
    likelihood = -0.5 * ((Y - theta) / SIGMA).square().sum(1)
    schools = -0.5 * ((theta - mu[:, None]) / log_tau.exp()[:, None]).square().sum(1) - 8 * log_tau
    prior = -0.5 * (mu / 5) ** 2 - torch.log1p((log_tau.exp() / 5) ** 2) + log_tau
    return likelihood + schools + prior


@pytest.mark.filterwarnings("ignore:vi. the ELBO was still rising")
def test_eight_schools_centred():
    """A funnel under a Gaussian: its mean of mu is 4.41 by 10,000 reference draws."""
    density = Density(eight_schools, 10, prior_scale=None)
    with pytest.warns(UserWarning, match="the fitted density is not near the posterior"):
        chain = Variational(whiten=False, steps=800).run(density, Job(chains=4, samples=500))
    assert abs(float(chain.mean[8]) - 4.41) > 0.4 * 3.31


def test_heavy_ratios_warn():
    density = Density(lambda z: -1.5 * (1 + z[:, 0] ** 2 / 2).log(), 1, prior_scale=None)
    with pytest.warns(UserWarning, match=r"Pareto's k is \d\.\d\d, above 0\.7"):
        Variational().run(density, Job(chains=1, samples=2))
