"""Sequential Monte Carlo for the evidence, against closed forms and quadrature."""

from __future__ import annotations

import importlib
import math
import warnings

import pytest
import torch

from lowland.errors import ConfigError
from lowland.samplers import Density, Grid, Job
from lowland.samplers.evidence import sequential_monte_carlo
from tests.samplers.oracles import banana


def gaussian(k, mean, sd):
    """A density with a likelihood N(z; mean, sd^2), and its log evidence under N(z; 0, 1)."""

    def likelihood(z):
        return -0.5 * ((z - mean) / sd).square().sum(1) - k * math.log(sd * math.sqrt(2 * math.pi))

    variance = sd**2 + 1
    return Density(likelihood, k), -0.5 * k * (
        mean**2 / variance + math.log(2 * math.pi * variance)
    )


@pytest.mark.parametrize(
    ("k", "mean", "sd"), [(1, 10.0, 0.3), (5, 3.0, 0.5), (20, 0.5, 0.1), (30, 0.3, 0.3)]
)
def test_gaussians_within_their_errors(k, mean, sd):
    density, exact = gaussian(k, mean, sd)
    results = [sequential_monte_carlo(density, seed=seed) for seed in range(2)]
    # an error from four repeats is a rough one: pooled over the seeds
    error = math.hypot(*(one.error for one in results), 0.15) / 2**0.5
    off = [(one.log_evidence - exact) / error for one in results]
    assert max(map(abs, off)) < 4
    assert abs(sum(off)) / 2**0.5 < 3.5  # no error that both of them share


def test_a_banana_by_quadrature():
    exact = Grid().run(banana(), Job()).log_evidence
    results = [sequential_monte_carlo(banana(), seed=seed) for seed in range(3)]
    errors = [(one.log_evidence - exact) / math.hypot(one.error, 0.05) for one in results]
    assert max(map(abs, errors)) < 4


def test_neighbouring_seeds_share_no_moves(monkeypatch):
    """With seed + step, step t of seed s + 1 was step t + 1 of seed s: a correlation of 0.43."""
    jobs = []
    record = lambda **options: jobs.append(options) or Job(**options)  # noqa: E731
    module = importlib.import_module("lowland.samplers.evidence")  # not the function
    monkeypatch.setattr(module, "Job", record)
    seeds = []
    for seed in (0, 1, 2):
        jobs.clear()
        sequential_monte_carlo(gaussian(5, 3.0, 0.5)[0], particles=32, seed=seed, moves=5)
        seeds.append({job["seed"] for job in jobs})
        assert len(seeds[-1]) == len(jobs) > 8
    assert not seeds[0] & seeds[1]
    assert not seeds[1] & seeds[2]


def test_particles_that_hardly_move_warn():
    """What the error of the mean of the Zs, at most a nat, would hide."""
    density, _ = gaussian(30, 1.0, 0.05)
    with pytest.warns(UserWarning, match=r"repeats lie .* nats apart .* raise particles=16"):
        result = sequential_monte_carlo(density, particles=16, moves=1)
    assert result.error > 1  # more than that of the mean of the Zs can be


def test_more_moves_are_made_where_particles_remember():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        few = sequential_monte_carlo(gaussian(2, 1.0, 0.5)[0], particles=16, repeats=2)
        many = sequential_monte_carlo(gaussian(8, 0.5, 0.1)[0], particles=16, repeats=2)
        fixed = sequential_monte_carlo(gaussian(8, 0.5, 0.1)[0], particles=16, repeats=2, moves=3)
    assert few.about["moves"] < many.about["moves"]
    assert fixed.about["moves"] == 3


@pytest.mark.parametrize(
    "options", [{"particles": 1}, {"repeats": 1}, {"moves": 0}, {"seed": -1}, {"seed": 0.5}]
)
def test_bad_input(options):
    with pytest.raises(ConfigError, match=next(iter(options)).rstrip("s")):
        sequential_monte_carlo(gaussian(1, 0.0, 1.0)[0], **options)
    flat = Density(lambda z: z.sum(1), 1, prior_scale=None)
    with pytest.raises(ConfigError, match="flat prior"):
        sequential_monte_carlo(flat)
    assert torch.isfinite(
        torch.tensor(sequential_monte_carlo(gaussian(1, 0.0, 1.0)[0]).log_evidence)
    )
