"""The classic colour scale, against its formula written out."""

import math

import numpy as np
import pytest

from lowland.records.shades import CLASSIC, classic_levels, classic_shade


def test_levels_are_those_of_the_formula():
    low, high, alpha, n = 0.02, 5.0, -5.0, 7
    gamma = (math.log(high - low) - alpha) / n
    expected = [low + math.exp(alpha + k * gamma) for k in range(n + 1)]
    expected[0] = low
    np.testing.assert_allclose(classic_levels(low, high, alpha, n), expected, rtol=1e-12)


def test_bands_are_equal_steps_of_colour():
    levels = classic_levels(0.02, 5.0, -5.0)
    shades = classic_shade(levels, vmax=5.0, alpha=-5.0)
    np.testing.assert_allclose(shades, np.linspace(0, 1, 8), atol=1e-12)


def test_above_vmax_there_is_one_colour_and_nan_stays():
    shades = classic_shade([0.1, 4.0, 7.0, np.inf, np.nan], vmax=5.0, alpha=-5.0)
    assert shades[2] == shades[3] == 1
    assert shades[1] < 1
    assert np.isnan(shades[4])
    assert not np.isnan(shades[:4]).any()


def test_a_given_range_is_that_of_another_picture():
    whole = classic_shade([0.0, 1.0, 3.0], alpha=-3.0)
    part = classic_shade([1.0], alpha=-3.0, low=0.0, high=3.0)
    assert part[0] == whole[1]


@pytest.mark.parametrize("alpha", [None, 50.0])
def test_an_alpha_that_does_not_fit_gives_way(alpha):
    levels = classic_levels(1.0, 1.001, alpha)
    assert (np.diff(levels) > 0).all()
    assert levels[0] == 1.0
    assert levels[-1] == 1.001


def test_flat_surfaces_have_one_colour():
    assert classic_shade([2.0, 2.0], vmax=5.0).tolist() == [0.0, 0.0]
    assert classic_shade([np.nan, np.inf], vmax=5.0)[1] == 1
    assert set(CLASSIC) >= {"loss", "error"}
