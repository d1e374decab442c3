"""Parameters and buffers of a model for checkpoints."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.tensor_files import same_tree
from lowland.train.model_state import load_model_state, model_state


def model(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    net.register_buffer("calls", torch.tensor(float(seed)), persistent=False)
    return net


def test_a_state_is_loaded_into_a_wrapped_model():
    state = {name: tensor.clone() for name, tensor in model_state(model(1)).items()}
    assert "calls" in state
    other = nn.DataParallel(model(2))
    load_model_state(other, state)
    assert same_tree(model_state(other), state)


def test_a_buffer_that_is_none_is_filled():
    net = model()
    net.register_buffer("first", None)
    load_model_state(net, model_state(model(1)) | {"first": torch.ones(2)})
    assert torch.equal(net.first, torch.ones(2))


def test_another_model_is_refused_by_the_name_that_is_missing():
    with pytest.raises(ll.ConfigError, match=r"another model: it has no 0\.weight"):
        load_model_state(model(), {"1.weight": torch.ones(3)})
