import pytest
import torch

import lowland as ll
from lowland.curvature.average import AverageSharpness
from lowland.errors import ConfigError
from tests.curvature.nets import EIGENVALUES, MINIMUM, quadratic, relu_net, surface_of


def test_the_mean_is_half_the_trace_and_each_value_a_quadratic_form():
    result = ll.sharpness(quadratic(), MINIMUM, kind=AverageSharpness(directions=300), radius=0.1)
    expected = 0.1**2 * float(EIGENVALUES.sum()) / 2
    half = float(result.interval[0, 1]) - float(result)
    assert abs(float(result) - expected) < 2 * half < 0.3 * expected
    z = ll.directions(quadratic(), MINIMUM, n=300, normalise=None)
    forms = 0.1**2 * (z**2 @ EIGENVALUES) / 2
    torch.testing.assert_close(result.values[0], forms, rtol=1e-6, atol=1e-12)


def test_the_gradient_cancels():
    kind = AverageSharpness(directions=50)
    at_minimum = ll.sharpness(quadratic(), MINIMUM, kind=kind, radius=0.1)
    beside = ll.sharpness(quadratic(), MINIMUM + 1.0, kind=kind, radius=0.1)
    torch.testing.assert_close(at_minimum.values, beside.values)
    assert beside.gradient_norm > 1 > 1e-6 > at_minimum.gradient_norm


def test_filters_have_the_norms_of_the_weights():
    kind = AverageSharpness(directions=400, normalise="filter")
    result = ll.sharpness(quadratic(), MINIMUM, kind=kind, radius=0.1)
    expected = 0.1**2 * float(MINIMUM.square().sum()) * float(EIGENVALUES.mean()) / 2
    half = float(result.interval[0, 1]) - float(result)
    assert abs(float(result) - expected) < 2 * half < 0.3 * expected


def test_filter_normalised_directions_are_invariant_and_plain_ones_are_not():
    surface, point = surface_of(relu_net())
    for normalise, expected in (("filter", True), ("layer", True), (None, False)):
        kind = AverageSharpness(directions=4, normalise=normalise)
        assert ll.sharpness(surface, point, kind=kind, radius=0.1).invariant is expected


def test_bad_options_raise():
    with pytest.raises(ConfigError, match="directions"):
        AverageSharpness(directions=0)
    with pytest.raises(ConfigError, match="normalise"):
        AverageSharpness(normalise="unit")
