"""The objective over a shape."""

import pytest
import torch

import lowland as ll
from lowland.train.objective import Objective

ENDS = torch.zeros(4), torch.ones(4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples: expected a whole number of at least 1"),
        ({"weight_decay": -1}, "weight_decay: expected a number of at least 0"),
        ({"log_volume": float("nan")}, "log_volume: expected a number"),
        ({"measure": "length"}, "measure: expected one of coords, arc, got 'length'"),
        ({"strategy": "both"}, "strategy: expected one of None, accumulate, vmap, got 'both'"),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(ll.ConfigError, match=message):
        Objective(**options)


def test_a_shape_must_have_what_the_objective_measures():
    curve, simplex = ll.Bezier.between(*ENDS), ll.Simplex(ENDS)
    Objective(measure="arc").require_fits(curve)
    Objective(log_volume=1.0).require_fits(simplex.grow())
    with pytest.raises(ll.ConfigError, match="no free anchor"):
        Objective().require_fits(ll.Line(*ENDS))
    with pytest.raises(ll.ConfigError, match="has no length"):
        Objective(measure="arc").require_fits(simplex.grow())
    with pytest.raises(ll.ConfigError, match="has no volume"):
        Objective(log_volume=1.0).require_fits(curve)
