"""Traces of known matrices: exact cases, unbiasedness, variance, and Hutch++ against Hutchinson."""

import math

import pytest
import torch

import lowland as ll
from lowland.curvature.trace import hutch_plus_plus, hutchinson
from tests.curvature.test_lanczos import symmetric


class Dense:
    """A matrix that counts its products."""

    def __init__(self, matrix):
        self.matrix, self.products = matrix, 0
        self.size, self.dtype, self.device = len(matrix), matrix.dtype, matrix.device

    def __matmul__(self, v):
        self.products += 1 if v.ndim == 1 else v.shape[1]
        return self.matrix @ v


def test_a_diagonal_is_exact_with_one_probe():
    diagonal = torch.arange(6.0).double()
    assert hutchinson(Dense(diagonal.diag()), probes=1) == (15.0, -math.inf, math.inf)


def test_hutchinson_is_unbiased_with_the_variance_of_its_formula():
    matrix = symmetric(torch.linspace(-1, 3, 20)) + 0.2
    estimates = torch.tensor(
        [hutchinson(Dense(matrix), probes=1, seed=seed).mean for seed in range(2000)]
    ).double()
    variance = 2 * float((matrix**2).sum() - (matrix.diag() ** 2).sum())
    error = math.sqrt(variance / 2000)
    assert float(estimates.mean()) == pytest.approx(24, abs=4 * error)
    assert float(estimates.var()) == pytest.approx(variance, rel=0.15)
    # the broken twin: entries of 0 and 1 in the place of signs, whose mean is not 0
    bits = torch.randint(2, (2000, 20), generator=torch.Generator().manual_seed(0)).double()
    twin = 2 * float(((bits @ matrix) * bits).sum(1).mean())
    assert abs(twin - 24) > 10 * error


def test_intervals_cover_the_trace():
    matrix = symmetric(torch.linspace(-1, 3, 20))
    intervals = [hutchinson(Dense(matrix), probes=8, seed=seed) for seed in range(300)]
    covered = sum(low <= 20 <= high for _, low, high in intervals) / 300
    assert covered > 0.9


def test_hutch_plus_plus_is_exact_for_low_rank_and_better_for_decaying_spectra():
    low_rank = symmetric([9.0, 4.0, 1.0, *[0.0] * 97])
    matrix = Dense(low_rank)
    assert hutch_plus_plus(matrix, products=15).mean == pytest.approx(14, rel=1e-9)
    assert matrix.products == 15
    decaying = symmetric([1 / (1 + i) ** 2 for i in range(100)])
    trace = float(decaying.trace())

    def error(estimate, **options):
        draws = [estimate(Dense(decaying), seed=seed, **options).mean for seed in range(30)]
        return float((torch.tensor(draws) - trace).square().mean().sqrt())

    assert error(hutch_plus_plus, products=30) < error(hutchinson, probes=30) / 5


def test_it_is_exact_where_products_are_as_many_as_weights():
    matrix = symmetric([3.0, 2.0, 1.0])
    assert hutch_plus_plus(Dense(matrix), products=90) == pytest.approx((6, 6, 6))


def test_seeds_and_numbers_are_checked():
    matrix = Dense(symmetric([3.0, 2.0, 1.0]))
    assert hutchinson(matrix, seed=1) == hutchinson(matrix, seed=1)
    with pytest.raises(ll.ConfigError, match="probes: expected a whole number of at least 1"):
        hutchinson(matrix, probes=0)
    with pytest.raises(ll.ConfigError, match="products: expected a whole number of at least 3"):
        hutch_plus_plus(matrix, products=2)
