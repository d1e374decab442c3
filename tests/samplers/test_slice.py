"""Slice sampling along lines, and an interval that is laid wrongly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lowland.errors import ConfigError
from lowland.samplers import Density, Grid, Job, Slice
from tests.samplers.contract import SamplerContract, errors_of, linear, short
from tests.samplers.oracles import banana, calibration, knowing, marginal_errors


class OneSided(Slice):
    """Steps out above only, without sharing the steps at random."""

    def share_steps(self, u):
        none = np.zeros(len(u), dtype=np.int64)
        return none, none + self.max_steps - 1


class TestInTurn(SamplerContract):
    chains, samples = 64, 50
    dimensions = (1, 5)  # and 20 below

    def make(self):
        return Slice()

    def job(self, **options):
        return super().job(**{"warmup": 50} | options)


class TestRandom(SamplerContract):
    chains, samples = 64, 50
    dimensions = (1, 2)

    def make(self):
        return Slice(directions="random")

    def job(self, **options):
        return super().job(**{"warmup": 50} | options)


@short
def test_twenty_coordinates():
    density, mean, covariance, _ = linear(20, 3.0)
    chain = Slice().run(density, Job(chains=64, samples=25, warmup=20))
    first, second = errors_of(chain, mean, covariance)
    assert first.abs().max() < 4
    assert second.abs().max() < 4.5


@short
def test_the_oracle_fails_where_the_interval_is_not_laid_at_random():
    # a narrow interval that stays narrow, so that its bound matters; along random directions, which
    # come both ways round, the two sides make up for one another
    density, mean, covariance, _ = linear(2, 3.0)
    normal = torch.randn(48, 2, generator=torch.Generator().manual_seed(0)).double()
    start = mean + normal @ torch.linalg.cholesky(covariance).T  # nothing to warm up
    for kind, fine in ((Slice, True), (OneSided, False)):
        chain = kind(width=0.2, max_steps=3).run(
            density, Job(chains=48, samples=250, warmup=0, start=start)
        )
        first, second = errors_of(chain, mean, covariance)
        worst = float(torch.cat([first, second]).abs().max())
        assert (worst < 4) is fine, worst


@short
@pytest.mark.parametrize("directions", ["turn", "random"])
def test_calibration_by_simulation(directions):
    sampler = knowing(Slice)(directions=directions)
    assert min(calibration(sampler, thin=4)) > 1e-3


@short
def test_calibration_detects_an_interval_that_is_laid_wrongly():
    """Widths do not grow here, so that the bound matters."""

    class Still(OneSided):
        def advance(self, density, chains, warming):
            return super().advance(density, chains, torch.zeros_like(warming))

    assert min(calibration(knowing(Still)(width=0.5, max_steps=3), thin=4)) < 1e-3


@short
@pytest.mark.parametrize("directions", ["turn", "random"])
def test_a_banana_by_quadrature(directions):
    exact = Grid().run(banana(), Job())
    chain = Slice(directions=directions).run(banana(), Job(chains=96, samples=100, warmup=50))
    assert marginal_errors(chain.coords, exact).abs().max() < 4


def test_a_flat_prior():
    density, mean, covariance, _ = linear(3, 1.0, prior_scale=1e6)
    flat = Density(density._log_likelihood, 3, prior_scale=None)
    chain = Slice().run(flat, Job(chains=64, samples=50, warmup=50))
    first, second = errors_of(chain, mean, covariance)
    assert max(first.abs().max(), second.abs().max()) < 4
    assert chain.prior_scale is None


@pytest.mark.parametrize("width", [1e-3, 1e3])
def test_widths_find_the_length_of_the_slices(width):
    scales = torch.tensor([0.01, 10.0]).double()
    density = Density(lambda z: -0.5 * (z / scales).square().sum(1), 2, prior_scale=None)
    start = scales * torch.randn(8, 2, generator=torch.Generator().manual_seed(0)).double()
    chain = Slice(width=width).run(density, Job(chains=8, samples=100, warmup=150, start=start))
    widths = torch.tensor(chain.about["widths"]).double() / scales
    # a slice of a standard normal is 2 sqrt(-2 log u + x²) long: 3.4 on average
    assert bool(((widths > 2) & (widths < 5)).all()), widths
    assert chain.about["evaluations_per_transition"] < 12  # of two moves
    assert float(chain.acceptance.mean()) > 0.4


@short
def test_widths_stay_after_warming_up():
    sampler = Slice(width=0.123)
    chain = sampler.run(linear(2, 1.0)[0], Job(chains=4, samples=20, warmup=0))
    assert chain.about["widths"] == pytest.approx([0.123, 0.123])


@short
def test_a_level_that_is_never_reached_again_leaves_the_chain_in_place():
    first = True

    def rounds_otherwise(z):
        nonlocal first
        value, first = (0.0 if first else -1e6), False
        return torch.full((len(z),), value)

    start = torch.tensor([0.3, -0.2]).double()
    density = Density(rounds_otherwise, 2)
    chain = Slice().run(density, Job(chains=4, samples=5, warmup=0, start=start))
    assert torch.equal(chain.draws, start.expand(20, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"directions": "up"}, "directions"), ({"width": 0.0}, "width"), ({"max_steps": 0}, "max")],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ConfigError, match=message):
        Slice(**options)
