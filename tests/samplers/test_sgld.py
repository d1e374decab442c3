"""SGLD against its own stationary law, which for a Gaussian mean is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lowland.errors import ConfigError, NonFiniteError
from lowland.samplers import SGLD, Density, Job
from tests.samplers.contract import linear, short

Y = 0.7 + torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
NOISE = 1.5  # y ~ N(z, NOISE²), each coordinate for itself


def gaussian(
    *, size: int | None = 4, prior_scale: float = 0.8, temperature: float = 1.0
) -> Density:
    """Each chain has its own minibatch of `size` rows, drawn with replacement; None: all rows."""

    def whole(z: Tensor) -> Tensor:
        return -0.5 * ((Y - z[:, None]) / NOISE).square().sum((1, 2))

    def part(z: Tensor, step: int) -> tuple[Tensor, Tensor]:
        if size is None:
            return whole(z), (Y - z[:, None]).sum(1) / NOISE**2
        generator = torch.Generator().manual_seed(1000 + step)
        rows = torch.randint(len(Y), (len(z), size), generator=generator)
        errors = Y[rows] - z[:, None]
        scale = len(Y) / size
        return (
            -0.5 * scale * (errors / NOISE).square().sum((1, 2)),
            scale * errors.sum(1) / NOISE**2,
        )

    return Density(whole, 2, prior_scale=prior_scale, temperature=temperature, minibatch=part)


def stationary(density: Density, step: float, size: int | None) -> tuple[Tensor, Tensor]:
    """Mean and covariance of z' = z + h (b_t - a z) / 2 + sqrt(h) N(0, I), an autoregression.

    The precision is a, and b_t has the covariance that comes from drawing rows.
    """
    h = step * density.prior_scale**2
    a = len(Y) / (density.temperature * NOISE**2) + 1 / density.prior_scale**2
    rows = torch.zeros(2, 2) if size is None else len(Y) ** 2 / size * Y.T.cov(correction=0)
    noise = rows / (density.temperature * NOISE**2) ** 2
    mean = Y.sum(0) / (density.temperature * NOISE**2) / a
    return mean, (h * torch.eye(2) + h**2 / 4 * noise) / (1 - (1 - h * a / 2) ** 2)


def exact(density: Density) -> Tensor:
    """The posterior's covariance."""
    a = len(Y) / (density.temperature * NOISE**2) + 1 / density.prior_scale**2
    return torch.eye(2, dtype=torch.float64) / a


def off(sampler: SGLD, density: Density, mean: Tensor, covariance: Tensor, **options) -> float:
    """How many standard errors the first two moments are off: of 2000 independent chains."""
    job = Job(**{"chains": 2000, "samples": 20, "warmup": 150, "thin": 3} | options)
    z = sampler.run(density, job).coords - mean
    products = (z[..., :, None] * z[..., None, :] - covariance)[..., (0, 0, 1), (0, 1, 1)]
    each = torch.cat((z, products), 2).mean(1)
    return float((each.mean(0) / (each.std(0) / job.chains**0.5)).abs().max())


@short
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("size", [4, None])
def test_the_stationary_law_of_a_constant_step(size, temperature):
    density = gaussian(size=size, temperature=temperature)
    bias = []
    for step in (0.1, 0.03, 0.01):
        mean, covariance = stationary(density, step, size)
        # a twentieth is left of how far its own law would be from where the chains start
        normal = torch.randn(2000, 2, generator=torch.Generator().manual_seed(1)).double()
        options = {"start": mean + normal @ torch.linalg.cholesky(covariance.double()).T, "thin": 1}
        result = off(SGLD(step=step), density, mean, covariance, warmup=int(3 / step), **options)
        assert result < 4, f"step = {step}"
        bias.append(float((covariance - exact(density)).abs().max()))
    # that law is the posterior's as steps become small, in proportion to them
    assert bias[0] > 2.5 * bias[1] > 6 * bias[2]


class Broken(SGLD):
    """Twice the noise that the step calls for."""

    def advance(self, density, chains, warming):
        before = self.state["next"][chains].clone()
        result = super().advance(density, chains, warming)
        drift = 0.5 * self.size(0) * density.prior_scale**2 * self.state["gradient"][chains]
        self.state["next"][chains] += self.state["next"][chains] - before - drift
        return result


@short
def test_the_law_fails_a_twin_with_too_much_noise_and_the_posterior_a_large_step():
    density = gaussian()
    mean, covariance = stationary(density, 0.1, 4)
    assert off(SGLD(step=0.1), density, mean, covariance) < 4
    assert off(Broken(step=0.1), density, mean, covariance) > 20
    assert off(SGLD(step=0.1), density, mean, exact(density)) > 20


@short
def test_falling_steps_lead_to_the_posterior():
    density = gaussian()
    mean, covariance = stationary(density, 1e-9, 4)[0], exact(density)
    sampler = SGLD(step=0.1, gamma=0.55, offset=1.0)
    assert off(sampler, density, mean, covariance, chains=400, warmup=2500, thin=20) < 4
    assert off(SGLD(step=0.1), density, mean, covariance, chains=400) > 10


@short
def test_without_preconditioning_steps_are_in_units_of_the_coordinates():
    density = gaussian()
    mean, covariance = stationary(density, 0.1, 4)
    plain = SGLD(step=0.1 * 0.8**2, precondition=False)
    assert off(plain, density, mean, covariance) < 4


@short
def test_a_cycle_explores_without_noise_and_gives_no_draws_there():
    sampler = SGLD(step=0.05, cycle=10, explore=0.6)
    chain = sampler.run(
        gaussian(size=None), Job(chains=3, samples=8, warmup=0, start=torch.ones(2))
    )
    assert chain.about["steps"] == 20  # 4 of 10 give draws
    assert [t for t in range(20) if not sampler.explores(t)] == [6, 7, 8, 9, 16, 17, 18, 19]
    # no noise for six steps: all chains are at one place at the first draw
    assert torch.equal(chain.coords[:, 0], chain.coords[:1, 0].expand(3, -1))
    assert len(chain.coords[:, 1].unique(dim=0)) == 3


@short
def test_the_log_density_is_that_of_the_draws_where_a_minibatch_is_all_data():
    density = gaussian(size=None, temperature=2.0)
    chain = SGLD().run(density, Job(chains=4, samples=20, warmup=5))
    assert torch.allclose(density(chain.draws), chain.log_density.flatten(), atol=1e-9)


@short
def test_a_seed_is_a_run_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    first, second, other = (
        SGLD().run(gaussian(), Job(chains=3, samples=10, warmup=5, seed=seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first.coords, second.coords)
    assert not torch.equal(first.coords, other.coords)
    assert torch.equal(torch.get_rng_state(), before)


@short
def test_a_stopped_run_goes_on_bit_by_bit(tmp_path, monkeypatch):
    monkeypatch.setattr("lowland.samplers.job.EVERY", 0.0)
    path = tmp_path / "chains.safetensors"
    job = lambda **options: Job(chains=3, samples=20, warmup=10, **options)  # noqa: E731
    sampler = lambda: SGLD(step=0.1, gamma=0.5, offset=5.0)  # noqa: E731
    whole = sampler().run(gaussian(), job())
    density = gaussian()
    plain = density._minibatch

    def stops(z: Tensor, step: int) -> tuple[Tensor, Tensor]:
        if step == 17:
            raise KeyboardInterrupt
        return plain(z, step)

    density._minibatch = stops
    with pytest.raises(KeyboardInterrupt):
        sampler().run(density, job(checkpoint=path))
    result = sampler().run(gaussian(), job(checkpoint=path))
    assert torch.equal(result.coords, whole.coords)
    assert torch.equal(result.log_density, whole.log_density)
    with pytest.raises(ConfigError, match="other settings"):
        SGLD(step=0.2).run(gaussian(), job(checkpoint=path))


@short
def test_steps_to_where_the_density_is_not_finite_are_rejected_with_a_warning():
    def part(z: Tensor, step: int) -> tuple[Tensor, Tensor]:
        value = torch.where(z[:, 0] > 0, 0.0, math.nan)
        return value, torch.zeros_like(z)

    density = Density(lambda z: z.sum(1) * 0, 1, minibatch=part)
    with pytest.warns(UserWarning, match=r"steps led to .* smaller step"):
        chain = SGLD(step=0.5).run(
            density, Job(chains=8, samples=50, warmup=5, start=torch.ones(8, 1))
        )
    assert (chain.coords > 0).all()
    assert torch.isfinite(chain.log_density).all()
    assert 0.5 < chain.acceptance.mean() < 0.99


def test_what_it_refuses():
    with pytest.raises(ConfigError, match="no minibatches"):
        SGLD().run(linear(2, 1.0)[0], Job(chains=2, samples=5))
    bad = Density(lambda z: z.sum(1) * math.nan, 1, minibatch=lambda z, t: (z.sum(1), z))
    with pytest.raises(NonFiniteError, match="start"):
        SGLD().run(bad, Job(chains=2, samples=5))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"step": 0.0}, "step"),
        ({"offset": -1.0}, "offset"),
        ({"gamma": 1.5}, "gamma"),
        ({"cycle": 1}, "cycle"),
        ({"cycle": 5, "gamma": 0.5}, "cycle"),
        ({"explore": 1.0}, "explore"),
        ({"cycle": 4, "explore": 0.9}, "explore"),
    ],
)
def test_options_out_of_range(options, name):
    with pytest.raises(ConfigError, match=name):
        SGLD(**options)
