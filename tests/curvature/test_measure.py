import math

import pytest
import torch

from lowland.curvature.measure import Measure, WorstCase
from lowland.curvature.objective import Objective
from lowland.curvature.sharpness import MEASURES
from lowland.errors import ConfigError
from tests.curvature.nets import MINIMUM, NOISE, quadratic


def test_each_restart_has_a_start_of_its_own():
    measure = WorstCase(steps=1, restarts=3, norm=2)
    near = Objective(quadratic(), MINIMUM + 1.0)

    def losses(seed, first=0):
        return [loss for part in measure.losses(near, 0.1, seed, first=first) for loss in part]

    assert losses(0)[0] == near.value(0.1 * near.gradient / near.gradient.norm())  # from w
    assert len({*losses(0)}) == 3
    assert losses(0) == losses(0)
    assert losses(0)[1:] != losses(1)[1:]
    assert losses(0, first=2) == losses(0)[2:]


def test_at_an_exact_minimum_the_first_start_is_random_too():
    near = Objective(
        quadratic(torch.eye(2).double()[0] + 1, torch.zeros(2).double()), torch.zeros(2)
    )
    assert not near.gradient.any()
    ((loss,),) = WorstCase(steps=20, restarts=1, norm=2).losses(near, 0.1, seed=0)
    assert loss - NOISE == pytest.approx(2 * 0.1**2 / 2, rel=1e-3)


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_every_measure_has_default_radii_and_plain_settings(name):
    measure = MEASURES[name]()
    assert isinstance(measure, Measure)
    assert measure.name == name
    assert all(radius > 0 for radius in measure.radius)
    assert all(isinstance(v, int | float | str | None) for v in measure.settings().values())
    assert math.inf not in measure.settings().values()  # JSON has none


def test_bad_options_raise():
    for options in ({"steps": 0}, {"restarts": 0}, {"norm": 1}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            WorstCase(**({"steps": 1, "restarts": 1, "norm": 2} | options))
