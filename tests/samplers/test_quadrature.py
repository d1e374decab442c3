"""Quadrature against closed forms and scipy's, and a lattice of fixed spacing that is wrong."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from scipy import integrate

from lowland.errors import ConfigError, NonFiniteError
from lowland.samplers import Density, EllipticalSlice, Grid, Job, Slice
from lowland.samplers.lattice import Lattice
from tests.samplers import ridge
from tests.samplers.contract import SamplerContract, linear, short
from tests.samplers.oracles import banana, marginal_errors

WIDTH = 0.01


class TestGrid(SamplerContract):
    dimensions = (1, 2, 3)
    random = False

    def make(self):
        return Grid()


def far(k, mean, sd):
    """A Gaussian likelihood so far out that the prior's box has none of the posterior."""
    density = Density(lambda z: -0.5 * ((z - mean) / sd).square().sum(1), k)
    precision = 1 / sd**2 + 1
    gap = mean**2 / (sd**2 + 1)
    evidence = -0.5 * k * (gap + math.log(precision))
    return density, mean / sd**2 / precision, precision**-0.5, evidence


@pytest.mark.parametrize(("k", "mean", "sd"), [(1, 10.0, 0.5), (2, 10.0, 0.5), (3, 8.5, 1.0)])
def test_the_box_is_enlarged_where_the_posterior_reaches_its_edge(
    k, mean, sd, tmp_path, monkeypatch
):
    density, middle, spread, evidence = far(k, mean, sd)
    monkeypatch.setattr("lowland.samplers.job.EVERY", 0.0)
    chain = Grid().run(density, Job(checkpoint=tmp_path / "grid.safetensors"))
    assert chain.about["converged"]
    assert ((chain.mean - middle) / spread).abs().max() < 1e-3
    assert (chain.covariance.diagonal() / spread**2 - 1).abs().max() < 1e-3
    assert chain.log_evidence == pytest.approx(evidence, abs=1e-3)

    class Stopped(Exception):
        pass

    calls = []

    def stops(done, total):
        calls.append(done)
        if len(calls) == 12:
            raise Stopped

    job = Job(checkpoint=tmp_path / "again.safetensors", progress=stops)
    with pytest.raises(Stopped):
        Grid().run(far(k, mean, sd)[0], job)
    job.progress = False
    assert torch.equal(Grid().run(far(k, mean, sd)[0], job).coords, chain.coords)


def test_a_posterior_beyond_the_largest_box_warns():
    density = far(1, 300.0, 1.0)[0]
    with pytest.warns(UserWarning, match="extends beyond 102 prior standard deviations"):
        chain = Grid().run(density, Job())
    assert not chain.about["converged"]
    # a box by hand is the integral that was asked for
    chain = Grid(bounds=(-1.0, 6.0)).run(far(1, 10.0, 0.5)[0], Job())
    assert chain.about["converged"]
    assert chain.about["on_edge"] > 0


def test_a_posterior_too_narrow_for_64_bit_keys_warns():
    density = Density(lambda z: -0.5 * ((z - 0.5) / 1e-6).square().sum(1), 3)
    with pytest.warns(UserWarning, match="not converged"):
        Grid().run(density, Job())


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_a_linear_model_to_four_digits_with_its_evidence(k, temperature):
    density, mean, covariance, evidence = linear(k, temperature)
    chain = Grid().run(density, Job())
    sd = covariance.diagonal().sqrt()
    assert ((chain.mean - mean) / sd).abs().max() < 1e-4
    assert ((chain.covariance - covariance) / (sd[:, None] * sd)).abs().max() < 1e-4
    assert chain.log_evidence == pytest.approx(evidence, abs=1e-4)
    assert chain.about["converged"]
    assert chain.about["moved"] < 0.005
    assert float(chain.weights.sum()) == pytest.approx(1.0)


def test_a_banana_by_scipy():
    density = banana()

    @cache  # the integrals have most points in common
    def p(y: float, x: float) -> float:
        return float(density(torch.tensor([[x, y]]).double()).exp())

    moments = [
        integrate.dblquad(lambda y, x, f=f: f(y, x) * p(y, x), -4, 4, -3, 8, epsabs=1e-4)[0]
        for f in (lambda y, x: 1.0, lambda y, x: x, lambda y, x: y)
    ]
    chain = Grid().run(banana(), Job())
    assert chain.log_evidence == pytest.approx(math.log(moments[0]), abs=1e-3)
    exact = torch.tensor(moments[1:]).double() / moments[0]
    assert torch.allclose(chain.mean, exact, atol=1e-3)


def bend(x):
    return torch.sin(1.5 * x) if isinstance(x, torch.Tensor) else math.sin(1.5 * x)


def narrow() -> tuple[Density, torch.Tensor, float]:
    """A bent ridge a hundredth wide, its mean and its evidence.

    z₁ given z₀ is Gaussian in closed form; what is left is an integral over z₀.
    """

    def log_likelihood(z: torch.Tensor) -> torch.Tensor:
        across = (z[:, 1] - bend(z[:, 0])) / WIDTH
        return -0.5 * across**2 - 0.5 * ((z[:, 0] - 1) / 0.5) ** 2

    variance = 1 + WIDTH**2

    def marginal(x: float) -> float:
        normal = math.exp(-0.5 * (x * x + bend(x) ** 2 / variance)) / (2 * math.pi)
        return (
            math.exp(-0.5 * ((x - 1) / 0.5) ** 2) * normal * WIDTH * (2 * math.pi / variance) ** 0.5
        )

    moments = [
        integrate.quad(lambda x, f=f: f(x) * marginal(x), -5, 6, epsabs=1e-13, limit=200)[0]
        for f in (lambda x: 1.0, lambda x: x, lambda x: bend(x) / variance)
    ]
    mean = torch.tensor(moments[1:]).double() / moments[0]
    return Density(log_likelihood, 2), mean, math.log(moments[0])


def test_a_ridge_a_hundredth_wide():
    density, mean, evidence = narrow()
    chain = Grid().run(density, Job())
    sd = chain.covariance.diagonal().sqrt()
    assert ((chain.mean - mean) / sd).abs().max() < 0.005
    assert chain.log_evidence == pytest.approx(evidence, abs=0.005)
    spacing = max(chain.about["spacing"])
    # all of the box at this spacing would have been fifty times as many
    assert chain.evaluations < 0.02 * (12 / spacing) ** 2


def test_a_fixed_spacing_of_a_twentieth_is_wrong_there():
    density, mean, evidence = narrow()
    grid = Lattice(torch.tensor([-6.0, -6.0]).double(), torch.tensor([6.0, 6.0]).double(), 240)
    keys = grid.all_keys()
    moments = grid.moments(keys, density(grid.points(keys)))
    sd = moments["covariance"].diagonal().sqrt()
    off = ((moments["mean"] - mean) / sd).abs().max()
    assert max(off, abs(moments["log_evidence"] - evidence)) > 0.05


def test_two_modes_of_which_one_is_narrow():
    def log_likelihood(z: torch.Tensor) -> torch.Tensor:
        wide = -0.5 * ((z + 2) / 0.5).square().sum(1) + 2 * math.log(1 / 0.5)
        thin = -0.5 * ((z - 2) / 0.02).square().sum(1) + 2 * math.log(1 / 0.02)
        return torch.logaddexp(wide, thin)

    density = Density(log_likelihood, 2, prior_scale=None)
    chain = Grid(bounds=(-6, 6)).run(density, Job())
    assert chain.log_evidence == pytest.approx(math.log(4 * math.pi), abs=0.005)
    assert torch.allclose(chain.mean, torch.zeros(2).double(), atol=0.01)


def test_a_box_is_a_flat_prior():
    flat = Density(lambda z: torch.zeros(len(z)), 2, prior_scale=None)
    chain = Grid(bounds=[(0.0, 1.0), (2.0, 4.0)]).run(flat, Job())
    assert chain.log_evidence == pytest.approx(math.log(2), abs=1e-5)  # some corners are neglected
    assert torch.allclose(chain.mean, torch.tensor([0.5, 3.0]).double())
    exact = torch.tensor([1 / 12, 4 / 12]).double()
    assert torch.allclose(chain.covariance.diagonal(), exact, rtol=1e-3)
    assert chain.about["on_edge"] > 0


def test_a_box_by_hand_cuts():
    density = linear(1, 1.0)[0]
    whole = Grid().run(density, Job())
    half = Grid(bounds=(float(whole.mean), 8.0)).run(density, Job())
    assert half.log_evidence == pytest.approx(whole.log_evidence - math.log(2), abs=1e-3)


def test_a_budget_that_is_too_small_warns_with_the_last_change():
    density = narrow()[0]
    with pytest.warns(UserWarning, match=r"change by .*raise max_evaluations"):
        chain = Grid(max_evaluations=8000).run(density, Job())
    assert chain.evaluations <= 8000
    assert not chain.about["converged"]


def test_a_budget_for_one_level():
    with pytest.warns(UserWarning, match="one level only"):
        chain = Grid(max_evaluations=4300).run(narrow()[0], Job())
    assert chain.about["moved"] is None


def test_nothing_is_evaluated_twice():
    seen: list[torch.Tensor] = []
    density = narrow()[0]
    plain = density._log_likelihood

    def noted(z: torch.Tensor) -> torch.Tensor:
        seen.append(z)
        return plain(z)

    density._log_likelihood = noted
    chain = Grid().run(density, Job())
    points = torch.cat(seen)
    assert len(points.unique(dim=0)) == len(points) == chain.evaluations


def test_a_finished_run_is_not_run_again(tmp_path):
    job = Job(checkpoint=tmp_path / "grid.safetensors")
    first = Grid().run(narrow()[0], job)
    density = Density(lambda z: 1 / 0, 2)  # never called
    again = Grid().run(density, job)
    assert torch.equal(again.coords, first.coords)
    assert again.log_evidence == first.log_evidence
    assert again.evaluations == first.evaluations


@pytest.mark.parametrize(
    ("density", "options", "message"),
    [
        (Density(lambda z: z.sum(1), 4), {}, r"4 coordinates .*'ess'"),
        (Density(lambda z: z.sum(1), 2, prior_scale=None), {}, "flat prior"),
        (Density(lambda z: z.sum(1), 2), {"bounds": (1.0, 0.0)}, "bounds"),
        (Density(lambda z: z.sum(1), 2), {"bounds": [(0.0, 1.0)] * 3}, "bounds"),
        (Density(lambda z: z.sum(1), 3), {"max_evaluations": 1000}, "max_evaluations"),
    ],
)
def test_what_does_not_fit(density, options, message):
    with pytest.raises(ConfigError, match=message):
        Grid(**options).run(density, Job())


@pytest.mark.parametrize(
    ("options", "message"), [({"tolerance": 0.0}, "tolerance"), ({"coarse": 2}, "coarse")]
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ConfigError, match=message):
        Grid(**options)


def test_finite_nowhere():
    with pytest.raises(NonFiniteError, match="nowhere"):
        Grid().run(Density(lambda z: torch.full((len(z),), -math.inf), 2), Job())


@short  # one draw in a hundred is a new one here
@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not ridge.CURVE.exists(), reason="../shared/data is not there")
def test_the_ridges_of_a_trained_curve():
    exact = Grid().run(ridge.density(), Job())
    assert exact.about["converged"]
    for sampler in (EllipticalSlice(), Slice()):
        chain = sampler.run(ridge.density(), Job(chains=32, samples=2000))
        off = (chain.mean - exact.mean).abs()
        assert bool((off < 4 * exact.covariance.diagonal().sqrt() / chain.ess.sqrt()).all())
        assert marginal_errors(chain.coords, exact).abs().max() < 4.5
