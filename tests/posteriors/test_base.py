"""The contract suite finds the faults that it is there for."""

import math

import pytest
import torch

from lowland import Gaussian, Point, Posterior
from tests.posteriors.contract import PosteriorContract


def stack(k, size, dtype):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(k, size, dtype=dtype, generator=generator)


def gaussian(size, dtype):
    return Gaussian(
        torch.arange(size, dtype=dtype),
        torch.full((size,), 0.5, dtype=dtype),
        stack(4, size, dtype),
    )


class GlobalNoise(Posterior):
    """Draws from torch's global generator."""

    def __init__(self, size, dtype):
        self.size, self.dtype = size, dtype

    def point(self, i, *, seed=0):
        torch.manual_seed(seed)
        return Point(torch.randn(self.size, dtype=self.dtype))


class Sequential(Posterior):
    """Draw i comes after draw i - 1, whatever i says."""

    def __init__(self, size, dtype):
        self.size, self.dtype = size, dtype
        self.generators = {}

    def point(self, i, *, seed=0):
        generator = self.generators.setdefault(seed, torch.Generator().manual_seed(seed))
        return Point(torch.randn(self.size, dtype=self.dtype, generator=generator))


class NarrowDensity(Gaussian):
    """`log_prob` of swa_gaussian: the deviations are not divided by K - 1."""

    def log_prob(self, w):
        k = len(self.deviations)
        whole = Gaussian(self.mean, self.variance, self.deviations * math.sqrt(k - 1))
        return whole.log_prob(w)


class SeedIgnored(Gaussian):
    def point(self, i, *, seed=0):
        return super().point(i, seed=0)


class AlwaysFloat32(Gaussian):
    def point(self, i, *, seed=0):
        return Point(super().point(i, seed=seed).weights.float())


def suite(factory):
    result = PosteriorContract()
    result.make = factory
    return result


def twin(kind):
    def make(size, dtype):
        whole = gaussian(size, dtype)
        return kind(whole.mean, whole.variance, whole.deviations)

    return make


@pytest.mark.parametrize(
    ("factory", "test", "arguments"),
    [
        (GlobalNoise, "test_draws_leave_the_global_generator_alone", ()),
        (Sequential, "test_the_same_number_and_seed_give_the_same_draw", ()),
        (Sequential, "test_a_draw_does_not_depend_on_the_others", ()),
        (twin(NarrowDensity), "test_the_density_is_the_samplers_or_there_is_none", ()),
        (twin(SeedIgnored), "test_seeds_differ", ()),
        (twin(SeedIgnored), "test_a_generator_replaces_the_seed", ()),
        (twin(AlwaysFloat32), "test_draws_are_flat_vectors_in_the_dtype", (7, torch.float64)),
    ],
)
def test_a_broken_twin_fails_where_the_gaussian_passes(factory, test, arguments):
    getattr(suite(gaussian), test)(*arguments)
    with pytest.raises(AssertionError):
        getattr(suite(factory), test)(*arguments)
