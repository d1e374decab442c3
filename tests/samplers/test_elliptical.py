"""Elliptical slice sampling, and what published code of it gets wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lowland.errors import ConfigError
from lowland.samplers import Density, EllipticalSlice, Grid, Job
from lowland.samplers.elliptical import CIRCLE
from tests.samplers.contract import SamplerContract, errors_of, linear, short
from tests.samplers.oracles import banana, calibration, knowing, marginal_errors, skew


class Forgetful(EllipticalSlice):
    """Shrinks to the last proposal from above, whichever side of the current point it is on."""

    def shrink(self, low, high, theta, fresh):
        return np.where(fresh, theta - CIRCLE, low), theta


class Half(EllipticalSlice):
    """Leaves out the half of the first bracket that lies behind the current point."""

    def shrink(self, low, high, theta, fresh):
        return low, np.where(fresh | (theta > 0), theta, high)


class Unscaled(EllipticalSlice):
    """Ignores the prior's scale, as a published sampler does."""

    def normals(self, density, n):
        return super().normals(density, n) / density.prior_scale


class Untempered(EllipticalSlice):
    """Drops the temperature, as a published sampler does."""

    def run(self, density, job):
        temperature, density.temperature = density.temperature, 1.0
        try:
            return super().run(density, job)
        finally:
            density.temperature = temperature


class Twice(EllipticalSlice):
    """Counts the prior in the slice's level too."""

    def run(self, density, job):
        density.likelihood = lambda z: Density.likelihood(density, z) + density.log_prior(z)
        try:
            return super().run(density, job)
        finally:
            del density.likelihood


ASKEW = [Forgetful, Half]
BROKEN = [Unscaled, Untempered, Twice]


class TestEllipticalSlice(SamplerContract):
    chains, samples = 64, 100
    dimensions = (1, 5)  # and 20 below

    def make(self):
        return EllipticalSlice()

    def job(self, **options):
        return super().job(**{"warmup": 50} | options)


def test_twenty_coordinates_with_weak_data():
    density, mean, covariance, _ = linear(20, 3.0, noise=6.0)
    chain = EllipticalSlice().run(density, Job(chains=128, samples=190, warmup=100))
    first, second = errors_of(chain, mean, covariance)
    assert first.abs().max() < 4
    assert second.abs().max() < 4.5


@short
@pytest.mark.parametrize("sampler", [EllipticalSlice, *BROKEN])
def test_the_oracle_fails_on_broken_ones(sampler):
    density, mean, covariance, _ = linear(2, 3.0, prior_scale=0.4)
    chain = sampler().run(density, Job(chains=32, samples=250))
    first, second = errors_of(chain, mean, covariance)
    worst = float(torch.cat([first, second]).abs().max())
    assert (worst < 4) is (sampler is EllipticalSlice), worst


@short
@pytest.mark.parametrize("sampler", [EllipticalSlice, *BROKEN])
def test_calibration_by_simulation(sampler):
    worst = min(calibration(knowing(sampler)()))
    assert (worst > 1e-3) is (sampler is EllipticalSlice), worst


def test_a_banana_by_quadrature_and_by_emcee():
    import emcee

    exact = Grid().run(banana(), Job())
    chain = EllipticalSlice().run(banana(), Job(chains=128, samples=250))
    assert marginal_errors(chain.coords, exact).abs().max() < 4
    density = banana()
    outside = emcee.EnsembleSampler(
        128, 2, lambda z: density(torch.from_numpy(z)).numpy(), vectorize=True
    )
    start = np.random.default_rng(0)
    outside.random_state = np.random.RandomState(0).get_state()
    outside.run_mcmc(start.normal(size=(128, 2)), 700)
    theirs = torch.from_numpy(outside.get_chain(discard=200)).transpose(0, 1)
    assert marginal_errors(theirs.contiguous(), exact).abs().max() < 4


@short
@pytest.mark.parametrize("sampler", [EllipticalSlice, *ASKEW])
def test_two_unequal_modes_detect_a_bracket_that_is_askew(sampler):
    exact = Grid().run(skew(), Job())
    chain = sampler().run(skew(), Job(chains=256, samples=250, warmup=50))
    worst = float(marginal_errors(chain.coords, exact).abs().max())
    assert (worst < 4) is (sampler is EllipticalSlice), worst


@short
def test_the_banana_detects_a_broken_sampler():
    exact = Grid().run(banana(), Job())
    chain = Unscaled().run(banana(), Job(chains=128, samples=250))
    assert marginal_errors(chain.coords, exact).abs().max() > 6


def test_diagnostics_of_a_run():
    density = linear(2, 1.0)[0]
    chain = EllipticalSlice().run(density, Job(chains=8, samples=400, warmup=0))
    per = chain.about["evaluations_per_transition"]
    # finished chains left no evaluation out: those of the start, and one a proposal
    assert per * 8 * 400 == pytest.approx(chain.evaluations - 8)
    assert float(1 / chain.acceptance.mean()) == pytest.approx(per, rel=0.05)
    assert chain.sampler == "ess"


def test_chains_do_not_wait_for_one_another():
    rounds = 0
    density = linear(2, 1.0)[0]
    plain = density._log_likelihood

    def counted(z):
        nonlocal rounds
        rounds += 1
        return plain(z)

    density._log_likelihood = counted
    chain = EllipticalSlice().run(density, Job(chains=32, samples=300, warmup=0))
    per = chain.about["evaluations_per_transition"]
    # were each transition as long as its longest chain's, it would be over twice as many
    assert rounds < 1.3 * per * 300


@short
def test_a_level_that_is_never_reached_again_leaves_the_chain_in_place():
    first = True

    def rounds_otherwise(z):
        nonlocal first
        value, first = (0.0 if first else -1e6), False
        return torch.full((len(z),), value)

    start = torch.tensor([0.3, -0.2]).double()
    density = Density(rounds_otherwise, 2)
    chain = EllipticalSlice().run(density, Job(chains=4, samples=5, warmup=0, start=start))
    assert torch.equal(chain.draws, start.expand(20, 2))
    assert float(chain.acceptance.max()) == 0


def test_a_flat_prior_is_not_for_it():
    density = Density(lambda z: -z.square().sum(1), 2, prior_scale=None)
    with pytest.raises(ConfigError, match="Gaussian prior"):
        EllipticalSlice().run(density, Job())
