"""Samplers by name."""

import pytest

from lowland import ConfigError
from lowland.samplers import EllipticalSlice
from lowland.samplers.registry import SAMPLERS, sampler_of


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_name_gives_the_sampler_that_bears_it(name):
    assert sampler_of(name).name == name
    assert sampler_of(name) is not sampler_of(name)


def test_a_sampler_is_itself_and_another_name_is_refused():
    own = EllipticalSlice()
    assert sampler_of(own) is own
    with pytest.raises(ConfigError, match=r"sampler: expected one of ess, .*, got 'gibbs'"):
        sampler_of("gibbs")
