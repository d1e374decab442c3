"""What is no part of the weights: found by name, and recognised where it changed."""

import pytest
import torch
from torch import nn

from lowland.core import ParamLayout
from lowland.core.fixed_state import FixedState
from lowland.core.template import Template
from lowland.errors import LayoutError


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, dtype=torch.float64))


def state() -> FixedState:
    return FixedState(ParamLayout(network(), where="weight"), Template(network()))


def test_frozen_parameters_that_differ_travel_with_buffers() -> None:
    model = network()
    assert state().changed_frozen_parameters(model) == {}
    with torch.no_grad():
        model[0].bias += 1
        model[0].weight += 1  # part of the weights
        model[1].running_mean += 1  # a buffer
    (changed,) = state().changed_frozen_parameters(model).items()
    assert changed[0] == "0.bias"
    assert torch.equal(changed[1], model[0].bias)
    assert changed[1].data_ptr() != model[0].bias.data_ptr()


def test_matching_buffers_have_the_models_dtype() -> None:
    given = {"1.running_mean": torch.ones(2), "0.bias": torch.ones(2), "n_averaged": torch.ones(1)}
    matching = state().matching(given)
    assert {name: value.dtype for name, value in matching.items()} == {
        "1.running_mean": torch.float64,
        "0.bias": torch.float32,
    }
    assert state().matching({}) == {}


def test_buffers_of_another_model_are_refused() -> None:
    with pytest.raises(LayoutError, match=r"expected 1\.(num_batches|running)"):
        state().matching({"norm.running_mean": torch.ones(2)})
    without = FixedState(ParamLayout(nn.Linear(1, 1)), Template(nn.Linear(1, 1)))
    assert without.matching({"n_averaged": torch.ones(1)}) == {}
