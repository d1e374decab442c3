import numpy as np
import pytest
import torch

from lowland import ConfigError, Ensemble, Gaussian, LayoutError, LowlandError, Mixture, PointMass
from tests.posteriors.contract import PosteriorContract


def component(size, dtype, at=0.0, sd=1.0):
    mean = torch.full((size,), at, dtype=dtype)
    return Gaussian(mean, torch.full((size,), sd**2, dtype=dtype))


class TestMultiSWAG(PosteriorContract):
    def make(self, size, dtype):
        parts = [component(size, dtype, at, sd) for at, sd in ((-2.0, 0.5), (1.0, 1.0), (3.0, 0.7))]
        return Mixture(parts)


class TestUnequalWeights(PosteriorContract):
    def make(self, size, dtype):
        parts = [component(size, dtype, -1.0), component(size, dtype, 2.0, 0.4)]
        return Mixture(parts, weights=[1, 3])


class TestNested(PosteriorContract):
    def make(self, size, dtype):
        inner = Mixture([component(size, dtype, 0.0), component(size, dtype, 1.0)])
        return Mixture([inner, component(size, dtype, 4.0)], weights=[2, 1])


def counts(weights, n):
    masses = [PointMass(torch.tensor([float(k)])) for k in range(len(weights))]
    draws = Mixture(masses, weights=weights).sample(n).flatten().long()
    return torch.bincount(draws, minlength=len(weights))


@pytest.mark.parametrize("levels", [2, 100])  # with equal weights, and without
def test_components_occur_in_proportion(levels):
    rng = np.random.default_rng(levels)
    for _ in range(200):
        weights = (rng.integers(1, levels, size=rng.integers(1, 9), endpoint=True) / 100).tolist()
        n = int(rng.integers(1, 121))
        expected = torch.tensor(weights, dtype=torch.float64) / sum(weights) * n
        error = counts(weights, n) - expected
        assert float(error.max()) < 1 + 1e-9, (weights, n)
        assert float(error.min()) > -2, (weights, n)


def test_equal_weights_take_turns():
    assert counts([1, 1, 1], 7).tolist() == [3, 2, 2]
    assert Mixture([PointMass(torch.tensor([k])) for k in (0.0, 1.0)]).sample(4).tolist() == [
        [0.0],
        [1.0],
        [0.0],
        [1.0],
    ]


def test_components_of_the_same_seed_draw_independently():
    twins = Mixture([component(4000, torch.float64), component(4000, torch.float64)])
    for seed in (0, 1, 5):
        first, second = twins.sample(2, seed=seed)
        assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.08
    # nor does seed 0 of one component meet seed 1 of the other
    draws = torch.cat([twins.sample(6, seed=seed) for seed in range(4)])
    between = torch.corrcoef(draws) - torch.eye(len(draws))
    assert float(between.abs().max()) < 0.1


def test_log_prob_is_the_weighted_sum_of_densities():
    parts = [component(3, torch.float64, 0.0), component(3, torch.float64, 1.0, 2.0)]
    mixture = Mixture(parts, weights=[1, 3])
    w = torch.randn(5, 3, dtype=torch.float64)
    expected = 0.25 * parts[0].log_prob(w).exp() + 0.75 * parts[1].log_prob(w).exp()
    torch.testing.assert_close(mixture.log_prob(w).exp(), expected)
    far = mixture.log_prob(torch.full((3,), 1e3, dtype=torch.float64))
    assert bool(torch.isfinite(far))  # logsumexp, not log of a sum


def test_there_is_no_density_where_a_component_has_none():
    mixture = Mixture([component(2, torch.float64), Ensemble([torch.zeros(2)])])
    with pytest.raises(LowlandError, match="Ensemble has no density"):
        mixture.log_prob(torch.zeros(2))


def test_what_makes_no_mixture_is_refused():
    one, two = PointMass(torch.zeros(1)), PointMass(torch.zeros(2))
    with pytest.raises(ConfigError, match="at least one component"):
        Mixture([])
    with pytest.raises(LayoutError, match="P = 1, 2"):
        Mixture([one, two])
    for weights in ([1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")]):
        with pytest.raises(
            ConfigError, match=r"weights: expected (2 positive numbers|a number above 0)"
        ):
            Mixture([one, one], weights=weights)
