"""The sections of a configuration: defaults, limits, and factories."""

import pytest
from pydantic import ValidationError

from lowland.errors import ConfigError
from lowland.runs.methods import METHODS
from lowland.runs.sections import Factory, Repeat, default_methods


def test_a_factory_calls_what_it_names_with_its_arguments_over_defaults():
    factory = Factory(name="builtins:dict", args={"a": 1})
    assert factory.call(a=0, b=2) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (Factory(name="lowland.zoo:MLPP"), "lowland.zoo:MLPP cannot be imported"),
        (Factory(name="math:pi"), "expected a callable, got float"),
        (Factory(name="lowland.zoo:MLP", args={"width": 3}), "check its args"),
        (Factory(name="operator:truediv", args={}), "check its args"),
    ],
)
def test_a_factory_that_cannot_be_called_is_named(factory, words):
    with pytest.raises(ConfigError, match=words):
        factory.call()


def test_a_factory_has_a_colon():
    with pytest.raises(ValidationError, match=r"package\.module:callable"):
        Factory(name="lowland.zoo.MLP")


def test_methods_by_request_are_no_default():
    assert default_methods() == [name for name, m in METHODS.items() if not m.by_request]
    assert "espro" not in default_methods()


def test_a_number_of_values_counts_from_zero():
    assert Repeat(over="seed", values=3).each() == [0, 1, 2]
    assert Repeat(over="seed", values=[5]).each() == [5]
    assert Repeat(over="seed").each() == []
