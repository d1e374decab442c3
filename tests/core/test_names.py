"""Names without wrappers' prefixes, and which of them a filter takes."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.core.names import clean_names, join_names, name_filter, named_state


def test_a_models_own_module_is_not_a_wrapper_where_names_would_clash() -> None:
    names = ["module.weight", "weight"]
    assert clean_names(names) == {n: n for n in names}


def test_state_of_a_wrapped_model_has_every_tensor_under_the_models_own_names() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.register_buffer("left_out", torch.ones(1), persistent=False)  # of the state dict
    wrapped = nn.DataParallel(torch.compile(model, backend="eager"))
    state = named_state(wrapped)
    assert state.keys() == model.state_dict().keys() | {"left_out"}
    assert state["0.weight"] is model[0].weight


def test_tied_parameters_have_all_their_names_or_the_first() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    assert named_state(model).keys() == {"0.weight", "1.weight"}
    assert named_state(model, aliases=False).keys() == {"0.weight"}


def test_a_filter_is_a_pattern_or_a_function() -> None:
    assert name_filter(None)("any")
    assert name_filter("bias$")("0.bias")
    assert not name_filter("bias$")("bias.0")
    assert name_filter(str.isupper)("A")
    assert not name_filter(str.isupper)("a")
    with pytest.raises(ll.ConfigError, match="reestimate: '\\(' is not a regular expression"):
        name_filter("(", argument="reestimate")


def test_long_lists_of_names_are_cut() -> None:
    assert join_names(list("abc")) == "a, b, c"
    assert join_names(list("abc"), most=2) == "a, b and 1 more"
