"""What every sampler promises. A new sampler's test inherits, and supplies `make` and `job`.

class TestMine(SamplerContract):
    def make(self): return Mine(...)
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lowland.errors import ConfigError, NonFiniteError
from lowland.records import Chain
from lowland.samplers import Density, Job, MarkovChain, Sampler


def linear(
    k: int, temperature: float, *, prior_scale: float = 1.3, noise: float = 0.5, seed: int = 0
):
    """A linear model with Gaussian noise: its density, and the posterior's mean and covariance.

    y = X z + e, so that at temperature T the precision is XᵀX / (T noise²) + I / prior_scale².
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(30, k, generator=generator, dtype=torch.float64)
    x[:, -1] += 0.7 * x[:, 0]  # so that coordinates depend on one another
    y = x @ torch.linspace(-1, 1, k, dtype=torch.float64) + noise * torch.randn(
        30, generator=generator, dtype=torch.float64
    )

    def log_likelihood(z: Tensor) -> Tensor:
        errors = y - z @ x.T
        return (-0.5 * (errors / noise) ** 2 - math.log(noise * math.sqrt(2 * math.pi))).sum(1)

    precision = x.T @ x / (temperature * noise**2) + torch.eye(k).double() / prior_scale**2
    covariance = torch.linalg.inv(precision)
    mean = covariance @ (x.T @ y) / (temperature * noise**2)
    # log of the integral of likelihood^(1/T) times the prior, in closed form
    at_mean = log_likelihood(mean[None])[0] / temperature - 0.5 * (mean @ mean) / prior_scale**2
    evidence = at_mean + 0.5 * torch.logdet(covariance) - k * math.log(prior_scale)
    density = Density(log_likelihood, k, prior_scale=prior_scale, temperature=temperature)
    return density, mean, covariance, float(evidence)


def stopped_after(density: Density, evaluations: float) -> Density:
    """The density, which interrupts the run after so many points."""
    plain, calls = density._log_likelihood, 0

    def stops(z: Tensor) -> Tensor:
        nonlocal calls
        calls += len(z)
        if calls > evaluations:
            raise KeyboardInterrupt
        return plain(z)

    density._log_likelihood = stops
    return density


def errors_of(chain: Chain, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """How many standard errors the means, and the second moments about the true mean, are off.

    Standard errors by the effective sample size of each quantity itself.
    """
    from arviz_stats.base import array_stats

    centred = chain.coords - mean
    k = len(mean)
    products = (centred[..., :, None] * centred[..., None, :]).flatten(2)

    def off(values: Tensor, truth: Tensor) -> Tensor:
        if chain.log_weights is None:
            n = torch.as_tensor(
                array_stats.ess(values.numpy(), chain_axis=0, draw_axis=1, method="mean")
            ).reshape(-1)
        else:
            n = (1 / chain.weights.square().sum()).expand(values.shape[-1])
        flat, weights = values.flatten(0, 1), chain.weights.flatten()
        middle = weights @ flat
        spread = (weights @ (flat - middle) ** 2).sqrt()
        return (middle - truth) / (spread / n.sqrt())

    return off(centred, torch.zeros(k).double()), off(products, covariance.flatten())


#: a few draws of a chain say nothing about whether chains agree
short = pytest.mark.filterwarnings("ignore:the chains disagree")


class SamplerContract:
    # what an oracle takes: a round costs as much for many chains as for few
    chains, samples = 8, 1000
    dimensions = (1, 3, 20)
    exact = True  # whether draws are of the density itself
    random = True  # whether a seed matters, and a job says how many draws there are

    def make(self) -> Sampler:
        raise NotImplementedError

    def job(self, **options) -> Job:
        return Job(**{"chains": self.chains, "samples": self.samples, **options})

    @short  # many chains of few draws
    @pytest.mark.parametrize("temperature", [1.0, 3.0])
    def test_a_linear_model_in_closed_form(self, temperature):
        # the second of the dimensions is enough to see what a temperature does
        for k in self.dimensions if temperature == 1 else self.dimensions[1:2]:
            density, mean, covariance, _ = linear(k, temperature)
            chain = self.make().run(density, self.job(seed=k))
            if self.random:
                assert chain.coords.shape == (self.chains, self.samples, k)
            assert chain.coords.shape[2] == k
            assert chain.coords.dtype == torch.float64
            first, second = errors_of(chain, mean, covariance)
            assert first.abs().max() < 4, f"k = {k}"
            assert second.abs().max() < 4.5, f"k = {k}"  # up to 210 different ones
            assert chain.temperature == temperature
            assert chain.evaluations == density.evaluations > 0

    @short
    def test_the_log_density_is_that_of_the_draws(self):
        density, *_ = linear(2, 2.0)
        chain = self.make().run(density, self.job(samples=50, warmup=10))
        assert torch.allclose(density(chain.draws), chain.log_density.flatten(), atol=1e-8)

    @short
    def test_a_seed_is_a_run(self):
        first, second, other = (
            self.make().run(linear(2, 1.0)[0], self.job(samples=20, warmup=20, seed=seed))
            for seed in (1, 1, 2)
        )
        assert torch.equal(first.coords, second.coords)
        assert torch.equal(first.coords, other.coords) is not self.random

    @short
    def test_it_leaves_the_global_generator_alone(self):
        before = torch.get_rng_state()
        self.make().run(linear(2, 1.0)[0], self.job(samples=5, warmup=5))
        assert torch.equal(torch.get_rng_state(), before)

    @short
    def test_a_stopped_run_goes_on_bit_by_bit(self, tmp_path, monkeypatch):
        monkeypatch.setattr("lowland.samplers.job.EVERY", 0.0)
        few = {"samples": 12, "warmup": 6}  # every round is written to disk
        whole = self.make().run(linear(2, 1.0)[0], self.job(**few))
        path = tmp_path / "chains.safetensors"
        density = stopped_after(linear(2, 1.0)[0], whole.evaluations // 2)
        with pytest.raises(KeyboardInterrupt):
            self.make().run(density, self.job(**few, checkpoint=path))
        chain = self.make().run(linear(2, 1.0)[0], self.job(**few, checkpoint=path))
        assert torch.equal(chain.coords, whole.coords)
        assert torch.equal(chain.log_density, whole.log_density)
        with pytest.raises(ConfigError, match="other settings"):
            self.make().run(linear(2, 3.0)[0], self.job(**few, checkpoint=path))
        if self.random:
            with pytest.raises(ConfigError, match="other settings"):
                self.make().run(linear(2, 1.0)[0], self.job(**few, seed=9, checkpoint=path))

    @short
    def test_what_is_not_a_number_is_avoided(self):
        density, mean, *_ = linear(1, 1.0)
        plain = density._log_likelihood
        density._log_likelihood = lambda z: torch.where(
            z[:, 0] > mean, torch.full_like(z[:, 0], math.nan), plain(z)
        )
        start = (mean - 0.1).expand(self.chains, 1)
        chain = self.make().run(density, self.job(samples=50, warmup=20, start=start))
        draws = chain.draws[chain.weights.flatten() > 0]
        assert bool((draws <= mean).all())

    def test_a_start_that_is_not_finite(self):
        density = Density(lambda z: torch.full((len(z),), math.nan), 1)
        with pytest.raises(NonFiniteError, match="start"):
            self.make().run(density, self.job(samples=5))


def is_markov(sampler: Sampler) -> bool:
    return isinstance(sampler, MarkovChain)
