import math

import pytest
import torch

from lowland.errors import ConfigError
from lowland.zoo import spirals


def test_the_second_arm_is_the_first_turned_by_half_a_turn():
    x, y = spirals(points=400, noise=0.0, turns=1.5)["train"]
    assert torch.equal(x[y == 0], -x[y == 1])
    radius = x[y == 0].norm(dim=1)
    assert float(radius.max()) <= 2 * math.pi * 1.5
    # at a radius the angle is the radius
    expected = torch.stack([-radius * radius.cos(), radius * radius.sin()], 1)
    torch.testing.assert_close(x[y == 0], expected, rtol=1e-4, atol=1e-4)


def test_splits_are_of_one_distribution_and_differ():
    found = spirals(points=30, held_out=40, seed=1)
    assert [len(found[name][1]) for name in ("train", "validation", "test")] == [60, 80, 80]
    again = spirals(points=30, held_out=40, seed=1)
    assert torch.equal(found["train"][0], again["train"][0])
    assert not torch.equal(found["validation"][0], found["test"][0])
    assert not torch.equal(found["train"][0], spirals(points=30, seed=2)["train"][0])
    with pytest.raises(ConfigError, match="at least 1 point"):
        spirals(points=0)
