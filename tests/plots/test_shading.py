"""Bands of colour for values: the levels of the papers, and the shade between them."""

import math

import numpy as np
import pytest

from lowland.errors import ConfigError, DataError
from lowland.plots.shading import percent, shading
from tests.plots.bowls import BOWL


def test_the_shade_is_that_of_the_level_below_and_goes_on_above_the_last():
    shaded = shading(BOWL.numpy(), "loss")
    values = np.sort(BOWL.numpy().ravel())
    shades = shaded.shade(values)
    assert (np.diff(shades) >= 0).all()
    inside = values < shaded.levels[-1]
    k = np.searchsorted(shaded.levels, values[inside], side="right") - 1
    np.testing.assert_array_equal(np.floor(shades[inside] + 1e-9), k)
    assert shades[~inside].min() >= 7
    assert shades[-1] > 7.5  # contours near the top are not drawn to a plateau's edge


def test_labels_of_near_levels_have_more_digits():
    shaded = shading(2.3 + 1e-4 * BOWL.numpy(), "loss")
    assert len(set(shaded.labels())) == 8
    assert float(shaded.labels()[-1]) == pytest.approx(2.30131, abs=1e-5)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [("log", 0.1 * 50 ** (np.arange(8) / 7)), ("linear", 0.1 + 4.9 * np.arange(8) / 7)],
)
def test_shares_of_the_examples_are_levels_in_percent(scale, expected):
    loss, error = (shading(BOWL.numpy(), name, scale=scale, vmax=5) for name in ("loss", "error"))
    np.testing.assert_allclose(loss.levels, expected)
    np.testing.assert_allclose(error.levels, expected)  # the values are percent already
    assert [percent(name) for name in ("loss", "error", "test_error", "terror")] == [
        False, True, True, False
    ]  # fmt: skip


def test_values_that_are_not_finite_have_no_level():
    shaded = shading(np.array([1.0, math.nan, 3.0, math.inf]), "nll", scale="linear")
    np.testing.assert_allclose(shaded.levels[[0, -1]], [1, 3])
    assert not shaded.over
    with pytest.raises(DataError, match="nll: all values are NaN or infinite"):
        shading(np.array([math.nan, math.inf]), "nll")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": "cubic"}, "expected one of classic, log, linear, got 'cubic'"),
        ({"bands": 0}, "bands"),
        ({"vmax": 0.1}, r"expected more than the least value, 0\.1, got 0\.1"),
    ],
)
def test_scales_that_there_are_not(options, words):
    with pytest.raises(ConfigError, match=words):
        shading(BOWL.numpy(), "loss", **options)
