"""Intervals of means, against scipy and their own coverage."""

import math

import pytest
import torch
from scipy import stats

from lowland.curvature.interval import mean_interval, t_quantile


def test_it_is_students_interval():
    draws = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = draws.numpy()
    low, high = stats.t.interval(0.95, 6, loc=values.mean(), scale=stats.sem(values))
    assert mean_interval(draws) == pytest.approx((values.mean(), low, high))


def test_it_covers_the_mean_of_gaussian_draws_in_95_of_100_cases():
    draws = torch.randn(2000, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    intervals = map(mean_interval, draws)
    covered = sum(interval.low < 0 < interval.high for interval in intervals) / len(draws)
    assert covered == pytest.approx(0.95, abs=0.015)
    normal = [abs(d.mean()) < 1.96 * d.std() / 2 for d in draws]  # the broken twin
    assert sum(normal) / len(draws) < 0.9


def test_one_draw_has_no_bound():
    assert mean_interval(torch.tensor([2.0])) == (2.0, -math.inf, math.inf)
    assert t_quantile(1) == math.inf
