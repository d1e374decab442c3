"""Axes of a task: non-negative, and an error where the output has no such axis."""

import numpy as np
import pytest

import lowland as ll
from lowland.core.axes import axis_of, require_axis


def test_axes_are_those_of_numpy():
    shape = (8, 5, 3)
    for axis in (1, 2, -1, -2):
        assert np.moveaxis(np.empty(shape), axis, 0).shape[0] == shape[axis_of("dim", axis, shape)]
        assert require_axis("dim", axis) == axis
    assert require_axis("dim", None) is None
    assert type(require_axis("dim", np.int64(1))) is int


@pytest.mark.parametrize("axis", [3, -3, -4])
def test_outputs_without_the_axis_are_an_error(axis):
    """Axis -3 of three is the batch axis."""
    with pytest.raises(ll.DataError, match=rf"class_dim={axis}: outputs \(8, 5, 3\) have no such"):
        axis_of("class_dim", axis, (8, 5, 3))


@pytest.mark.parametrize(
    ("axis", "words"),
    [(0, "axis 0 is that of the examples"), (1.5, "whole number"), ("last", "whole number"),
     (True, "whole number")],
)  # fmt: skip
def test_values_that_are_no_output_axis_are_an_error(axis, words):
    with pytest.raises(ll.ConfigError, match=f"target_dim: .*{words}"):
        require_axis("target_dim", axis)
