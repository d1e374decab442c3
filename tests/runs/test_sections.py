"""The sections of a configuration: defaults, limits, and factories."""

import pytest
import torch
from pydantic import ValidationError

from lowland.errors import ConfigError
from lowland.runs.methods import METHODS
from lowland.runs.sections import Config, Factory, Repeat, default_methods


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


@pytest.mark.parametrize(
    ("device", "fast", "expected"),
    [
        (None, False, None),
        (None, True, "bfloat16"),
        ("no such device", True, None),
    ],
)
def test_auto_precision_is_the_devices(device, fast, expected, monkeypatch):
    capabilities = {"architecture": "x86_64", "avx512_bf16": fast}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    body = {"model": {"name": "m:net"}, "data": {"name": "m:data"}, "autocast": "auto"}
    assert Config.model_validate({**body, "device": device}).autocast == expected
