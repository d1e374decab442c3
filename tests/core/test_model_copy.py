"""Private copies of models."""

import torch
from torch import nn

from lowland.core.model_copy import private_copy, uncompiled, unwrap
from tests.models import weight_norm_by_hook


def test_wrappers_of_any_order_are_left_out():
    model = nn.Linear(2, 1)
    compiled = torch.compile(model, backend="eager")
    assert unwrap(nn.DataParallel(compiled)) is model
    assert unwrap(torch.compile(nn.DataParallel(model), backend="eager")) is model
    assert uncompiled(compiled) is model
    assert unwrap(model) is uncompiled(model) is model


def test_a_copy_shares_nothing_and_keeps_ties():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    copied = private_copy(model)
    assert copied[1].weight is copied[0].weight
    assert copied[0].weight is not model[0].weight
    with torch.no_grad():
        copied[0].weight.zero_()
    assert model[0].weight.any()


def test_compiled_parts_and_computed_weights_are_copied():
    model = nn.Sequential(torch.compile(nn.Linear(2, 2), backend="eager"))
    assert type(private_copy(model)[0]) is nn.Linear
    hooked = weight_norm_by_hook()
    x = torch.ones(2, 6)
    hooked(x)  # leaves a computed weight, which deepcopy refuses
    assert torch.equal(private_copy(hooked)(x), hooked(x))
