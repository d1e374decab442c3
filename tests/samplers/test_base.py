"""The driver of Markov chains and the density, with the plainest kernel there is."""

from __future__ import annotations

import sys
from typing import ClassVar

import pytest
import torch

from lowland.samplers import Density, Job, MarkovChain
from tests.samplers.contract import SamplerContract, errors_of, linear, short


class Metropolis(MarkovChain):
    """A random walk; `broken`: takes the square of what to accept with."""

    name: ClassVar[str] = "metropolis"

    def __init__(self, scale: float = 0.3, *, broken: bool = False) -> None:
        self.scale, self.broken = scale, broken

    def begin(self, density, z, log_density):
        return {"z": z, "log_density": log_density, "accepted": torch.zeros(len(z))}

    def advance(self, density, chains, warming):
        z, old = self.state["z"][chains], self.state["log_density"][chains]
        new = z + self.scale * torch.randn(z.shape, generator=self.generator, dtype=z.dtype)
        value = density(new)
        u = torch.rand(len(z), generator=self.generator, dtype=z.dtype)
        take = u.log() < (value - old) * (2 if self.broken else 1)
        self.state["z"][chains] = torch.where(take[:, None], new, z)
        self.state["log_density"][chains] = torch.where(take, value, old)
        self.state["accepted"][chains] += take.float()
        return torch.ones(len(chains), dtype=torch.bool)


class TestMetropolis(SamplerContract):
    chains, samples = 32, 1000
    dimensions = (1, 2)

    def make(self):
        return Metropolis()


@short
def test_the_oracle_fails_on_a_walk_that_accepts_too_little():
    density, mean, covariance, _ = linear(2, 1.0)
    chain = Metropolis(broken=True).run(density, Job(chains=32, samples=1000))
    first, second = errors_of(chain, mean, covariance)
    assert max(first.abs().max(), second.abs().max()) > 4.5


def test_chains_that_disagree_warn_with_what_to_do():
    two = Density(lambda z: torch.logaddexp(-50 * (z[:, 0] - 3) ** 2, -50 * (z[:, 0] + 3) ** 2), 1)
    start = torch.tensor([[3.0], [-3.0]])
    with pytest.warns(UserWarning, match=r"R-hat is .* take more samples"):
        chain = Metropolis().run(two, Job(chains=2, samples=200, start=start))
    assert chain.rhat[0] > 1.05


@short
def test_thinning_keeps_every_third_transition():
    density = linear(2, 1.0)[0]
    all_of_them = Metropolis().run(density, Job(chains=4, samples=30, warmup=5))
    some = Metropolis().run(density, Job(chains=4, samples=10, warmup=5, thin=3))
    assert torch.equal(some.coords, all_of_them.coords[:, 2::3])


@short
def test_more_samples_of_a_finished_run(tmp_path):
    path = tmp_path / "chains.safetensors"
    run = lambda samples: Metropolis().run(  # noqa: E731
        linear(2, 1.0)[0], Job(chains=4, samples=samples, checkpoint=path)
    )
    first = run(10)
    more = run(25)
    assert torch.equal(more.coords[:, :10], first.coords)
    whole = Metropolis().run(linear(2, 1.0)[0], Job(chains=4, samples=25))
    assert torch.equal(more.coords, whole.coords)
    # fewer, for a look at them, lose none of the others
    assert torch.equal(run(5).coords, whole.coords[:, :5])
    assert torch.equal(run(25).coords, whole.coords)


def test_without_arviz_the_draws_are_not_lost(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_stats.base.array", None)
    with pytest.warns(UserWarning, match="lowland\\[samplers\\]"):
        chain = Metropolis().run(linear(1, 1.0)[0], Job(chains=2, samples=20))
    assert chain.coords.shape == (2, 20, 1)
