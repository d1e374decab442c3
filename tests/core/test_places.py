"""Where parameters and buffers are stored."""

import torch
from torch import nn

from lowland.core.places import computed_tensors, places_of, slots


def test_a_name_has_every_place_that_is_tied_to_it():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    places, unfilled = places_of(model)
    assert places["0.weight"] == places["1.weight"] == ("0.weight", "1.weight")
    assert places["0.bias"] == ("0.bias",)
    assert unfilled == []


def test_names_have_no_prefixes_and_empty_buffers_are_listed():
    model = nn.DataParallel(nn.BatchNorm1d(2))
    model.module.register_buffer("first", None)
    places, unfilled = places_of(model)
    assert places["weight"] == places["module.weight"] == ("module.weight",)
    assert places["first"] == ("module.first",)
    assert unfilled == ["module.first"]


def test_writing_into_a_slot_changes_the_module():
    model = nn.Sequential(nn.Linear(2, 2))
    tensors, key = slots(model)["0.bias"]
    tensors[key] = nn.Parameter(torch.full((2,), 7.0))
    assert torch.equal(model[0].bias, torch.full((2,), 7.0))


def test_tensors_left_by_hooks_are_listed():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].left = torch.ones(1)
    assert [(key, value) for _, key, value in computed_tensors(model)] == [("left", torch.ones(1))]
