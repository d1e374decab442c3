"""Options of growth from keyword arguments."""

import math

import pytest

import lowland as ll
from lowland.train.growth_options import GrowthOptions, growth_options


def test_keyword_arguments_go_to_growth_or_to_training():
    growth, train = growth_options(3, 0.1, {"rise": 0.2, "samples": 2, "seed": 4, "clip": 1.0})
    assert growth == GrowthOptions(3, 0.1, rise=0.2, samples=2)
    assert train == ll.TrainOptions(seed=4, clip=1.0)


def test_whole_numbers_are_made_integers_and_rise_may_be_infinite():
    growth = GrowthOptions(3.0, 0, rise=math.inf, count=10.0)
    assert [type(growth.epochs), type(growth.strength), type(growth.count)] == [int, float, int]
    assert growth.rise == math.inf


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("samples", 0), ("strength", -1), ("jitter", 0), ("points", 0), ("count", 0),
     ("rise", -math.inf), ("rise", math.nan)],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ll.ConfigError, match=f"^{name}: expected"):
        GrowthOptions(**{"epochs": 1, "strength": 0.1} | {name: value})
