"""NUTS: its trees against a recursion and an integrator, its draws against closed forms."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from lowland.errors import ConfigError, NonFiniteError
from lowland.samplers import NUTS, Density, Job, hmc
from tests.samplers.contract import SamplerContract, errors_of, linear, short


@pytest.mark.filterwarnings("ignore:.*diverged")  # of what is not a number there are many
class TestNUTS(SamplerContract):
    chains, samples = 32, 40  # a round of many chains takes as long as one of few

    def make(self):
        return NUTS()

    def job(self, **options):
        return super().job(**{"warmup": 30 if "samples" in options else 60} | options)


def test_a_dense_metric():
    density, mean, covariance, _ = linear(5, 1.0)
    chain = NUTS(dense=True).run(density, Job(chains=32, samples=50, warmup=100))
    first, second = errors_of(chain, mean, covariance)
    assert first.abs().max() < 4
    assert second.abs().max() < 4.5


class Fixed(NUTS):
    """Steps of one size and a metric of ones: nothing to adapt."""

    def __init__(self, step: float, **options) -> None:
        super().__init__(**options)
        self.step = step

    def begin(self, density, z, log_density):
        state = super().begin(density, z, log_density)
        state["search"].zero_()
        state["factor"].fill_(1.0)
        state["log_step"].fill_(math.log(self.step))
        return state

    def advance(self, density, chains, warming):
        return super().advance(density, chains, torch.zeros_like(warming))


def normal(k: int) -> Density:
    return Density(lambda z: -0.5 * z.square().sum(1), k, prior_scale=None)


# -- trees ---------------------------------------------------------------------------------------


def recursive(u: np.ndarray) -> bool:
    """Whether momenta (n, k) of a tree of n = 2^d leaves, or of one of its subtrees, turn back."""
    if len(u) == 1:
        return False
    left, right = np.split(u, 2)
    turns = lambda a, b, total: a @ total <= 0 or b @ total <= 0  # noqa: E731
    return (
        recursive(left)
        or recursive(right)
        or turns(u[0], u[-1], u.sum(0))
        or turns(left[0], right[0], left.sum(0) + right[0])
        or turns(left[-1], right[-1], left[-1] + right.sum(0))
    )


@pytest.mark.parametrize("bend", [0.3, 0.4, 0.6])  # from hardly any turn to many
def test_u_turns_without_recursion_are_those_of_the_recursion(bend):
    n, depth, k = 200, 5, 3
    generator = np.random.default_rng(0)
    sampler = NUTS()
    sampler.slots, sampler.begins = hmc._bookkeeping(depth + 1)
    paths = np.ones(k) + bend * generator.standard_normal((n, 1 << depth, k)).cumsum(1)
    marks = np.full((n, depth + 1, 3, k), np.nan)
    part = np.zeros((n, k))
    turned = np.zeros(n, dtype=bool)
    for leaf in range(1 << depth):
        u = paths[:, leaf]
        part = part + u
        if leaf % 2 == 0:
            marks[:, sampler.slots[leaf]] = np.stack((u, paths[:, leaf - 1], part), 1)
        else:
            begins = np.repeat(sampler.begins[leaf][None], n, 0)
            turned |= sampler._turned(marks, u, part, begins)
    expected = np.array([recursive(path) for path in paths])
    assert 0 < expected.sum() < n
    assert (turned == expected).all()

    def ends(u):  # without the checks across halves, some would be missed
        half = len(u) // 2
        return half and (ends(u[:half]) or ends(u[half:]) or min(u[[0, -1]] @ u.sum(0)) <= 0)

    assert sum(map(bool, map(ends, paths))) < expected.sum()


@pytest.mark.parametrize(("step", "leapfrogs"), [(0.12, 31), (0.09, 63), (0.25, 15)])
@short
def test_trees_end_after_half_a_period(step, leapfrogs):
    # In many dimensions momenta turn back after pi: 31 steps of 0.12 are longer, 15 are not
    assert (leapfrogs // 2) * step < math.pi < leapfrogs * step
    start = torch.randn(8, 300, generator=torch.Generator().manual_seed(0)).double()
    chain = Fixed(step).run(normal(300), Job(chains=8, samples=8, warmup=0, start=start))
    assert chain.about["leapfrogs"] == leapfrogs
    assert chain.evaluations >= 16 + 64 * leapfrogs


@short
def test_no_tree_is_deeper_than_its_limit():
    chain = Fixed(0.01, max_depth=3).run(normal(2), Job(chains=4, samples=10, warmup=0))
    assert chain.about["leapfrogs"] == 7
    assert chain.about["at_max_depth"] == 40


def curved(z: torch.Tensor) -> torch.Tensor:
    """A banana: y bends with x."""
    x, y = z.T
    return -0.5 * x**2 - 0.5 * ((y - x**2 + 1) / 0.6) ** 2


class Watched(Fixed):
    """Keeps the ends of trees and the energies that they lost."""

    def begin(self, density, z, log_density):
        self.trees = []
        return super().begin(density, z, log_density)

    def _add_subtrees(self, rows):
        result = super()._add_subtrees(rows)
        state = self._arrays
        self.trees += [(state["ends"][i].copy(), int(state["depth"][i])) for i in rows]
        return result

    def _log_weight(self, value, u, energy):
        result = super()._log_weight(value, u, energy)
        self.worst = max(getattr(self, "worst", 0.0), np.abs(result).max())
        return result


def verlet(z, u, step, n):
    gradient = torch.func.grad(lambda z: curved(z[None])[0])
    for _ in range(n):
        u = u + 0.5 * step * gradient(z)
        z = z + step * u
        u = u + 0.5 * step * gradient(z)
    return z, u


@short
def test_a_tree_is_one_trajectory_that_can_be_gone_back():
    sampler = Watched(0.1)
    density = Density(curved, 2, prior_scale=None)
    sampler.run(density, Job(chains=2, samples=5, warmup=0, start=torch.zeros(2)))
    assert max(depth for _, depth in sampler.trees) > 3
    for ends, depth in sampler.trees:
        (z0, u0, _), (z1, u1, gradient) = torch.from_numpy(ends)
        n = (1 << depth) - 1
        for result, expected in [
            (verlet(z0, u0, 0.1, n), (z1, u1)),
            (verlet(z1, u1, -0.1, n), (z0, u0)),
        ]:
            assert torch.allclose(torch.stack(result), torch.stack(expected), atol=1e-8)
        assert torch.allclose(density.value_and_grad(z1[None])[1][0], gradient)


@short
def test_energy_errors_fall_with_the_square_of_the_step():
    worst = []
    for step in (0.1, 0.05, 0.025):
        sampler = Watched(step, max_depth=6)
        job = Job(chains=16, samples=15, warmup=0, start=torch.zeros(2), seed=1)
        sampler.run(Density(curved, 2, prior_scale=None), job)
        worst.append(sampler.worst)
    assert worst[0] < 0.5
    assert all(a / b > 2 for a, b in pairwise(worst))


# -- draws ---------------------------------------------------------------------------------------


class Last(Fixed):
    """Takes a subtree's last point, whatever it weighs."""

    def _take_leaf(self, chance, log_weight, weight):
        return np.ones(len(chance), dtype=bool)


class Unweighted(Fixed):
    """Points weigh the same."""

    def _log_weight(self, value, u, energy):
        result = super()._log_weight(value, u, energy)
        return np.where(result > -hmc.DIVERGED, 0.0, result)


class Blind(Fixed):
    """Looks for U-turns of the whole tree alone: another tree from where it leads."""

    def _turned(self, marks, u, part, begins):
        return np.zeros(len(u), dtype=bool)


class Stale(Fixed):
    """Carries a gradient over from the place before."""

    def _add_subtrees(self, rows):
        gradient = self._arrays["gradient"][rows].copy()
        result = super()._add_subtrees(rows)
        self._arrays["gradient"][rows] = gradient
        return result


def bananas(n: int, seed: int = 0) -> torch.Tensor:
    """Independent draws, (n, 2)."""
    x, e = torch.randn(2, n, generator=torch.Generator().manual_seed(seed)).double()
    return torch.stack((x, x**2 - 1 + 0.6 * e), 1)


def worst_of(kind: type[Fixed], step: float = 0.4, n: int = 4000) -> float:
    """How many standard errors moments are off after some transitions from exact draws.

    n independent chains: the standard error is that of their own means.
    """
    density = Density(curved, 2, prior_scale=None)
    chain = kind(step).run(density, Job(chains=n, samples=10, warmup=0, start=bananas(n)))
    each = features(chain.coords.flatten(0, 1)).unflatten(0, (n, 10)).mean(1)
    return float(((each.mean(0) - true_means()) / (each.std(0) / n**0.5)).abs().max())


@cache
def true_means() -> torch.Tensor:
    """Means of the banana's features, by quadrature."""
    axis = torch.linspace(-12, 12, 1201, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    return curved(grid).softmax(0) @ features(grid)


def features(z: torch.Tensor) -> torch.Tensor:
    x, y = z.T
    return torch.stack((x, y, x * x, x * y, y * y, curved(z), (x > 1).double()), 1)


@short
@pytest.mark.filterwarnings("ignore:.*diverged")
@pytest.mark.parametrize("kind", [Fixed, Last, Unweighted, Blind, Stale])
def test_a_banana_by_quadrature_and_broken_twins_that_fail(kind):
    worst = worst_of(kind)
    assert worst < 4 if kind is Fixed else worst > 5


class Replicates(Density):
    """As many posteriors as chains: replicate i is chain i's, for k coefficients of a logit."""

    def __init__(self, n: int, k: int = 2, rows: int = 12) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(rows, k, generator=generator).double() + 0.5
        self.truth = torch.randn(n, k, generator=generator).double()  # drawn from the prior
        self.y = torch.bernoulli((self.truth @ self.x.T).sigmoid(), generator=generator)
        self.rows = torch.arange(n)
        super().__init__(self.fit, k, gradient=self.slope)

    def fit(self, z: torch.Tensor) -> torch.Tensor:
        logits = (2 * self.y[self.rows] - 1) * (z @ self.x.T)
        return torch.nn.functional.logsigmoid(logits).sum(1)

    def slope(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        errors = self.y[self.rows] - (z @ self.x.T).sigmoid()
        return self.fit(z), errors @ self.x


@short
@pytest.mark.filterwarnings("ignore:.*diverged")
@pytest.mark.parametrize("kind", [Fixed, Unweighted])
def test_calibration_by_simulation(kind):
    """Talts et al. 2018: ranks of true values among the draws of their posteriors are uniform."""

    class Told(kind):
        def advance(self, density, chains, warming):
            density.rows = chains
            return super().advance(density, chains, warming)

    worst = ranks_of(Told(0.6))
    assert worst > 1e-3 if kind is Fixed else worst < 1e-6


def ranks_of(sampler: NUTS, n: int = 2000, draws: int = 15, thin: int = 5) -> float:
    """The least p-value of the chi-square tests of the ranks."""
    density = Replicates(n)
    job = Job(chains=n, samples=draws, warmup=10, thin=thin, start=torch.zeros(2))
    chain = sampler.run(density, job)
    worst = 1.0
    for truth, result in [
        *zip(density.truth.T, chain.coords.unbind(2), strict=True),
        (density.truth.square().sum(1), chain.coords.square().sum(2)),
    ]:
        ranks = (result < truth[:, None]).sum(1)
        counts = torch.bincount(ranks, minlength=draws + 1).view(16, -1).sum(1)
        worst = min(worst, float(stats.chisquare(counts.numpy()).pvalue))
    return worst


# -- warming up ----------------------------------------------------------------------------------


class Recorded(NUTS):
    """Keeps what chains use after warm-up."""

    def begin(self, density, z, log_density):
        self.used = []
        return super().begin(density, z, log_density)

    def advance(self, density, chains, warming):
        result = super().advance(density, chains, warming)
        if not warming.any():
            self.used.append([self.state[name].clone() for name in ("step", "factor", "log_step")])
        return result


@short
@pytest.mark.parametrize("dense", [False, True])
def test_nothing_is_learnt_after_warming_up(dense):
    sampler = Recorded(dense=dense)
    sampler.run(linear(3, 1.0)[0], Job(chains=4, samples=40, warmup=60))
    assert len(sampler.used) > 40
    for result, first in zip(sampler.used[-1], sampler.used[0], strict=True):
        assert torch.equal(result, first)
    step, factor, _ = sampler.used[0]
    assert not torch.equal(step[0], step[1])  # each chain learnt its own
    assert not torch.equal(factor[0], factor[1])


@short
def test_warmup_learns_the_posteriors_scale_and_the_target_acceptance():
    scales = torch.logspace(-0.4, 0.3, 6, dtype=torch.float64)
    density = Density(lambda z: -0.5 * (z / scales).square().sum(1), 6, prior_scale=None)
    steps = []
    for target in (0.8, 0.95):
        sampler = NUTS(target_accept=target)
        start = scales * torch.randn(16, 6, generator=torch.Generator().manual_seed(1)).double()
        chain = sampler.run(density, Job(chains=16, samples=20, warmup=60, start=start))
        ratio = sampler.state["factor"].log().mean(0).exp() / scales
        assert ((ratio > 0.7) & (ratio < 1.4)).all()
        assert abs(float(chain.acceptance.mean()) - target) < 0.12
        steps.append(sum(chain.about["step_size"]) / 16)
    assert steps[0] > 1.3 * steps[1]


@short
def test_a_density_with_a_cliff_diverges_and_warns():
    # a wall that the gradient does not announce
    density = Density(lambda z: torch.where(z[:, 0] > 0, 0.0, -1e6) * 1.0 - 3 * z[:, 0].abs(), 1)
    start = torch.ones(4, 1)
    with pytest.warns(UserWarning, match=r"transitions diverged: .* target_accept"):
        chain = NUTS().run(density, Job(chains=4, samples=50, warmup=50, start=start))
    assert chain.about["divergences"] > 2
    assert (chain.coords > 0).all()


def test_a_start_whose_gradient_is_not_finite_is_refused():
    density = Density(lambda z: -z.square().sum(1).sqrt(), 2)  # the norm has no slope at 0
    with pytest.raises(NonFiniteError, match=r"the gradient .* not finite at the start of 1 of 2"):
        NUTS().run(density, Job(chains=2, samples=5, start=torch.tensor([[1.0, 0.0], [0.0, 0.0]])))


@short
def test_a_flat_density_ends_the_search_of_a_step():
    density = Density(lambda z: z.sum(1) * 0, 1, prior_scale=None)
    chain = NUTS(max_depth=2).run(density, Job(chains=2, samples=5, warmup=0))
    assert torch.isfinite(chain.coords).all()


@pytest.mark.parametrize(
    "options", [{"target_accept": 1.0}, {"target_accept": 0}, {"max_depth": 0}, {"max_depth": 16}]
)
def test_options_out_of_range(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        NUTS(**options)
