"""Data by name: called with their arguments, and refused where there is no such thing."""

import sys
import types

import pytest
import torch

from lowland import ConfigError
from lowland.zoo import digits
from lowland.zoo.load_splits import load_splits


@pytest.fixture
def own(monkeypatch):
    module = types.ModuleType("own_named")
    module.data = lambda n=2: {"test": (torch.zeros(n), torch.zeros(n)), "name": "mine"}
    module.nothing = lambda: [1, 2]
    module.train_only = lambda: {"train": 1}
    monkeypatch.setitem(sys.modules, "own_named", module)


def test_a_name_is_called_with_its_arguments():
    found = load_splits({"name": "lowland.zoo:digits", "args": {"train": 0.2}})
    for part in ("train", "validation", "test"):
        assert all(map(torch.equal, found[part], digits(train=0.2)[part]))
    assert found["name"] == "digits"
    assert load_splits("lowland.zoo:digits").keys() == found.keys()


def test_splits_are_themselves_and_keep_the_name_that_they_have(own):
    splits = {"test": (torch.zeros(1), torch.zeros(1))}
    assert load_splits(splits) == splits
    assert load_splits(splits) is not splits
    assert load_splits({"name": "own_named:data", "args": {"n": 5}})["name"] == "mine"
    assert len(load_splits({"name": "own_named:data", "args": None})["test"][0]) == 2


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (3, "expected a name or splits, got int"),
        ("digits", "package.module:callable"),
        ({"args": {}}, "package.module:callable"),
        ({"name": "lowland.zoo:digits", "arg": {}}, "package.module:callable"),
        ("lowland.zoo:digitz", "lowland.zoo:digitz cannot be imported"),
        ("lowland_zoo:digits", "lowland_zoo:digits cannot be imported"),
        ("own_named:nothing", "own_named:nothing to return a dict with test"),
        ("own_named:train_only", "own_named:train_only to return a dict with test"),
    ],
)
def test_what_names_no_data_is_refused(own, data, words):
    with pytest.raises(ConfigError, match=words):
        load_splits(data)
