"""Scores of real-valued forecasts against integrals and against what calibration means."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

import lowland as ll
from lowland.records import Predictive


def integral(y, cdf):
    """The definition, by quadrature in two parts."""
    below = integrate.quad(lambda x: cdf(x) ** 2, -60, y, points=[y - 3, y - 1], limit=200)[0]
    above = integrate.quad(lambda x: (1 - cdf(x)) ** 2, y, 60, points=[y + 1, y + 3], limit=200)[0]
    return below + above


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1)


@pytest.mark.parametrize(
    ("y", "mean", "sd"), [(0, 0, 1), (2, -1, 0.5), (-0.3, 0.2, 3), (5, 5, 0.1)]
)
def test_crps_of_a_gaussian_against_the_integral(y, mean, sd):
    result = ll.crps(tensor(y), tensor(mean), tensor(sd**2))
    assert float(result) == pytest.approx(integral(y, stats.norm(mean, sd).cdf), rel=1e-6)
    # the broken twin: a variance taken for a standard deviation
    if sd not in (1,):
        assert float(ll.crps(tensor(y), tensor(mean), tensor(sd))) != pytest.approx(float(result))


def test_crps_of_a_mixture_against_the_integral():
    means, sds = np.array([-1.0, 0.5, 3.0]), np.array([0.4, 1.0, 0.2])
    m = torch.from_numpy(means).view(3, 1, 1).expand(3, 2, 1)
    v = torch.from_numpy(sds).view(3, 1, 1).expand(3, 2, 1) ** 2
    ys = [0.0, 2.5]
    result = ll.crps(tensor(*ys), m, v)[:, 0]

    def cdf(x):
        return special.ndtr((x - means) / sds).mean()

    np.testing.assert_allclose(result, [integral(y, cdf) for y in ys], rtol=1e-5)
    # not that of the Gaussian with its moments, nor the mean over components
    moments = ll.crps(tensor(*ys), m.mean(0), v.mean(0) + m.var(0, correction=0))[:, 0]
    assert not torch.allclose(moments, result, rtol=1e-2)
    mean_of = ll.crps(tensor(*ys), m[0], v[0]) / 3 + sum(
        ll.crps(tensor(*ys), m[i], v[i]) / 3 for i in (1, 2)
    )
    assert bool((mean_of[:, 0] > result).all())


def test_the_limits_of_equal_components_and_of_zero_variance():
    y, m, v = (torch.randn(6, 2, dtype=torch.float64) for _ in range(3))
    v = v.exp()
    same = ll.crps(y, m.expand(5, 6, 2), v.expand(5, 6, 2))
    torch.testing.assert_close(same, ll.crps(y, m, v))
    torch.testing.assert_close(ll.crps(y, m, torch.full_like(v, 1e-20)), (y - m).abs())
    nothing = torch.zeros_like(v)
    torch.testing.assert_close(ll.crps(y, m, nothing), (y - m).abs())
    assert bool((ll.crps(m, m, nothing) == 0).all())


def test_shapes_are_never_broadcast():
    with pytest.raises(ll.DataError, match=r"targets \(4, 1\) expected .* got \(4,\)"):
        ll.crps(torch.zeros(4, 1), torch.zeros(4), torch.ones(4))
    with pytest.raises(ll.DataError, match="crps"):
        ll.crps(torch.zeros(4, 1), torch.zeros(1, 4), torch.ones(1, 4))


def forecast(n=40000, factor=1.0, seed=0):
    """Targets sampled from the forecast, or from one `factor` times as wide."""
    g = torch.Generator().manual_seed(seed)
    mean = torch.randn(n, 1, generator=g, dtype=torch.float64)
    sd = torch.rand(n, 1, generator=g, dtype=torch.float64) + 0.5
    y = mean + factor * sd * torch.randn(n, 1, generator=g, dtype=torch.float64)
    return Predictive("regression", 1, mean=mean, variance=sd**2, targets=y)


def test_coverage_of_a_calibrated_forecast():
    pred = forecast()
    scores = ll.scores(pred)
    for level in (50, 90, 95):
        error = 4 * math.sqrt(level / 100 * (1 - level / 100) / len(pred.mean))
        assert scores[f"coverage_{level}"] == pytest.approx(level / 100, abs=error)
    sd = pred.variance.sqrt()
    assert scores["sd"] == pytest.approx(float(sd.mean()))
    assert scores["width_90"] == pytest.approx(float((2 * stats.norm.ppf(0.95) * sd).mean()))
    # its expectation for y ~ N(m, s²) is s/√π
    assert scores["crps"] == pytest.approx(float(sd.mean()) / math.sqrt(math.pi), rel=0.02)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_coverage_of_forecasts_of_a_wrong_width(factor):
    scores = ll.scores(forecast(factor=factor))
    for level in (50, 90, 95):
        expected = 2 * stats.norm.cdf(stats.norm.ppf(0.5 + level / 200) / factor) - 1
        assert scores[f"coverage_{level}"] == pytest.approx(expected, abs=0.01)


def test_classifications_have_no_scores():
    with pytest.raises(ll.DataError, match="mean, variance and targets"):
        ll.scores(Predictive("classification", 1, probs=torch.rand(2, 2)))
