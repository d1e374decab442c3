"""Inputs come before what needs them."""

import pytest

from lowland.artifacts.order import complete, ordered
from lowland.errors import StoreError
from tests.artifacts.toys import Number, Sum, tree


def test_inputs_come_first_and_once():
    top, first, second, count, inner = tree()
    names = [each.name for each in ordered([top, inner, first])]
    assert sorted(names) == sorted(["data/train", *(each.name for each in tree())])
    for each in (top, inner):
        assert all(names.index(one.name) < names.index(each.name) for one in each.inputs)
    assert ordered([second, count]) == [second, count]


def test_targets_are_completed_without_sources_and_what_is_intermediate():
    names = [each.name for each in complete([tree()[0]])]
    assert sorted(names) == ["number/a", "number/b", "sum/all", "sum/inner"]


def test_names_that_come_twice_are_refused():
    with pytest.raises(StoreError, match=r"value: 1 there, 2 now"):
        ordered([Number("number/a", 1), Number("number/a", 2)])
    a, b = Sum("sum/a"), Sum("sum/b")
    a.inputs, b.inputs = (b,), (a,)
    a.__dict__["fingerprint"] = b.__dict__["fingerprint"] = "0" * 32
    with pytest.raises(StoreError, match="in a circle"):
        ordered([a])
