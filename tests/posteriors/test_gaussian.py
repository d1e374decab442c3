import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from lowland import ConfigError, Gaussian, LayoutError, LowlandError, Point
from lowland.posteriors.noise import generator, normal
from tests.posteriors.contract import PosteriorContract


def moments(size, k, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    mean = torch.randn(size, generator=g, dtype=torch.float64)
    variance = torch.rand(size, generator=g, dtype=torch.float64) + 0.1
    deviations = torch.randn(k, size, generator=g, dtype=torch.float64) if k else None
    return [None if t is None else t.to(dtype) for t in (mean, variance, deviations)]


def dense(post):
    """The covariance of Maddox et al. 2019, as a (P, P) matrix."""
    diagonal = np.diag(post.variance.double().numpy())
    if post.deviations is None:
        return post.scale * diagonal
    d = post.deviations.double().numpy()
    return post.scale * (diagonal / 2 + d.T @ d / (2 * (len(d) - 1)))


class TestLowRank(PosteriorContract):
    def make(self, size, dtype):
        return Gaussian(*moments(size, 5, dtype))


class TestDiagonal(PosteriorContract):
    def make(self, size, dtype):
        return Gaussian(*moments(size, 0, dtype), scale=0.3)


class TestLowPrecisionDeviations(PosteriorContract):
    def make(self, size, dtype):
        mean, variance, deviations = moments(size, 5, dtype)
        return Gaussian(mean, variance, deviations.bfloat16())


@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("k", [0, 2, 7, 60])
@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_log_prob_is_that_of_the_dense_covariance(size, k, scale, batch):
    post = Gaussian(*moments(size, k), scale=scale)
    w = post.mean + torch.randn(
        *batch, size, dtype=torch.float64, generator=torch.Generator().manual_seed(5)
    )
    expected = MultivariateNormal(post.mean, torch.from_numpy(dense(post))).log_prob(w)
    result = post.log_prob(w)
    assert result.shape == batch
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-9)


def test_log_prob_works_in_float64_whatever_the_weights():
    mean, variance, deviations = moments(30, 4, torch.float32)
    narrow = Gaussian(mean + 100, variance * 1e-8, deviations * 1e-4)
    exact = MultivariateNormal(narrow.mean.double(), torch.from_numpy(dense(narrow)))
    w = narrow.sample(5)
    result = narrow.log_prob(w)
    torch.testing.assert_close(result, exact.log_prob(w.double()), rtol=1e-9, atol=1e-7)


def test_log_prob_goes_through_memory_in_parts(monkeypatch):
    post = Gaussian(*moments(50, 4))
    w = post.sample(3)
    whole = post.log_prob(w)
    monkeypatch.setattr("lowland.posteriors.gaussian._PART", 7)
    torch.testing.assert_close(post.log_prob(w), whole, rtol=1e-12, atol=1e-12)


def two_correlated_weights():
    """20 iterates of two weights that are always equal, with unit variance, as SWAG sees them."""
    value = torch.arange(20, dtype=torch.float64)
    value = (value - value.mean()) / value.std(correction=0)
    # rows whose Gram matrix is exactly (K - 1) x the covariance of the pair
    deviations = (value * math.sqrt(19 / 20))[:, None].expand(20, 2)
    return torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64), deviations


def check_moments(sample):
    """Maddox et al.: half diagonal, half low rank: variance 1, correlation 1/2."""
    x = sample(10_000)
    assert torch.allclose(x.mean(0), torch.zeros(2, dtype=x.dtype), atol=0.05)
    covariance = x.T.cov()
    assert torch.allclose(covariance.diagonal(), torch.ones(2, dtype=x.dtype), atol=0.07)
    assert float(covariance[0, 1] / covariance[0, 0]) == pytest.approx(0.5, abs=0.045)


def test_moments_of_samples_of_two_perfectly_correlated_weights():
    post = Gaussian(*two_correlated_weights())
    assert dense(post) == pytest.approx(np.array([[1, 0.5], [0.5, 1]]))
    check_moments(post.sample)


def draws(n, formula):
    """n samples of `formula(mean, variance, deviations, z1, z2)` with fresh noise."""
    mean, variance, deviations = two_correlated_weights()
    g = torch.Generator().manual_seed(0)
    z1 = torch.randn(n, 2, dtype=torch.float64, generator=g)
    z2 = torch.randn(n, 2, 20, dtype=torch.float64, generator=g)
    return formula(mean, variance, deviations, z1, z2)


def paper(mean, variance, deviations, z1, z2):
    return mean + variance.sqrt() * z1 / 2**0.5 + z2[:, 0] @ deviations / 38**0.5


def z2_per_layer(mean, variance, deviations, z1, z2):
    low_rank = torch.einsum("npk,kp->np", z2, deviations)
    return mean + variance.sqrt() * z1 / 2**0.5 + low_rank / 38**0.5


def half_left_out(mean, variance, deviations, z1, z2):
    return mean + variance.sqrt() * z1 + z2[:, 0] @ deviations / 19**0.5


def half_twice(mean, variance, deviations, z1, z2):
    return mean + (paper(mean, variance, deviations, z1, z2) - mean) / 2**0.5


def k_of_the_maximum_rank(mean, variance, deviations, z1, z2, rank=40):
    return mean + variance.sqrt() * z1 / 2**0.5 + z2[:, 0] @ deviations / (2 * (rank - 1)) ** 0.5


def test_the_check_of_moments_passes_the_papers_formula():
    check_moments(lambda n: draws(n, paper))


@pytest.mark.parametrize("twin", [z2_per_layer, half_left_out, half_twice, k_of_the_maximum_rank])
def test_the_check_of_moments_fails_the_published_mistakes(twin):
    with pytest.raises(AssertionError):
        check_moments(lambda n: draws(n, twin))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_draw_is_the_papers_formula_on_its_noise(dtype):
    mean, variance, deviations = moments(1000, 6, dtype)
    post = Gaussian(mean, variance, deviations, scale=2.0)
    z1 = normal(1000, seed=3, draw=4, dtype=dtype).double()
    z2 = torch.empty(6, dtype=dtype).normal_(generator=generator(3, 4, (1 << 12) - 1)).double()
    diagonal = variance.double().sqrt() * z1 / 2**0.5
    low_rank = z2 @ deviations.double() / (2 * 5) ** 0.5
    expected = mean.double() + 2**0.5 * (diagonal + low_rank)
    torch.testing.assert_close(post.draw(4, seed=3).double(), expected, rtol=1e-5, atol=1e-5)


def test_rank_zero_draws_the_whole_diagonal():
    mean, variance, _ = moments(1000, 0)
    post = Gaussian(mean, variance, scale=0.25)
    z1 = normal(1000, seed=0, draw=0, dtype=torch.float64)
    torch.testing.assert_close(post.draw(0), mean + 0.5 * variance.sqrt() * z1)


def test_parts_do_not_change_a_draw(monkeypatch):
    post = Gaussian(*moments(1000, 6, torch.float32))
    whole = post.draw(0)
    monkeypatch.setattr("lowland.posteriors.gaussian._PART", 64)
    torch.testing.assert_close(post.draw(0), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("k", [0, 5])
def test_scale_zero_draws_the_mean(k):
    post = Gaussian(*moments(20, k), scale=0.0)
    assert torch.equal(post.draw(0), post.mean)
    with pytest.raises(LowlandError, match="scale is 0"):
        post.log_prob(post.mean)


def test_weights_that_never_moved_are_drawn_as_they_are():
    mean, variance, deviations = moments(6, 3)
    variance[2], deviations[:, 2] = 0, 0
    post = Gaussian(mean, variance, deviations)
    assert (post.sample(50)[:, 2] == mean[2]).all()
    with pytest.raises(LowlandError, match="1 of 6 weights have variance 0"):
        post.log_prob(mean)


def test_low_precision_deviations_are_used_as_they_are_stored():
    mean, variance, deviations = moments(40, 6, torch.float32)
    stored = deviations.bfloat16()
    short = Gaussian(mean, variance, stored)
    wide = Gaussian(mean, variance, stored.float())
    assert torch.equal(short.draw(2), wide.draw(2))
    assert torch.equal(short.log_prob(mean), wide.log_prob(mean))


def test_with_scale_multiplies_the_covariance_and_copies_nothing():
    post = Gaussian(*moments(20, 5))
    wide = post.with_scale(4.0)
    assert wide.scale == 4.0
    assert post.scale == 1.0
    assert wide.mean is post.mean
    assert wide.deviations is post.deviations
    torch.testing.assert_close(wide.draw(1) - post.mean, 2 * (post.draw(1) - post.mean))


def test_draws_are_the_callers_own():
    post = Gaussian(*moments(5, 0))
    post.draw(0).zero_()
    assert bool(post.draw(0).abs().max() > 0)
    assert isinstance(post.point(0), Point)


@pytest.mark.parametrize(
    ("arguments", "scale", "error", "text"),
    [
        ((torch.zeros(3), torch.ones(2)), 1.0, LayoutError, r"\(3,\) and \(2,\)"),
        ((torch.zeros(2, 3), torch.ones(2, 3)), 1.0, LayoutError, r"expected weights \(P,\)"),
        ((torch.zeros(3), torch.ones(3), torch.ones(2, 4)), 1.0, LayoutError, r"expected \(K, 3\)"),
        ((torch.zeros(3), torch.ones(3), torch.ones(3)), 1.0, LayoutError, r"expected \(K, 3\)"),
        ((torch.zeros(3), torch.ones(3), torch.ones(1, 3)), 1.0, ConfigError, "at least 2 rows"),
        ((torch.zeros(3), torch.ones(3)), -1.0, ConfigError, "scale"),
        ((torch.zeros(3), torch.ones(3)), math.inf, ConfigError, "scale"),
        ((torch.zeros(3), torch.ones(3)), math.nan, ConfigError, "scale"),
    ],
)
def test_what_makes_no_gaussian_is_refused(arguments, scale, error, text):
    with pytest.raises(error, match=text):
        Gaussian(*arguments, scale=scale)


def test_log_prob_of_weights_of_another_size():
    with pytest.raises(LayoutError, match=r"expected \(..., 3\), got \(4,\)"):
        Gaussian(torch.zeros(3), torch.ones(3)).log_prob(torch.zeros(4))
