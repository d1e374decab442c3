"""Weights that users give, as anchors."""

import pytest
import torch

import lowland as ll
from lowland.geometry.stacking import stack_weight_buffers, stack_weights


def test_weights_are_stacked_in_the_widest_dtype() -> None:
    w = torch.ones(3)
    assert stack_weights([w, w], what="the ends").dtype == torch.float32
    stacked = stack_weights([w, ll.Point(w.double() * 2)], what="the ends")
    assert torch.equal(stacked, torch.tensor([[1.0] * 3, [2.0] * 3], dtype=torch.float64))


def test_weights_that_are_none_are_named() -> None:
    w = torch.ones(3)
    with pytest.raises(ll.LayoutError, match=r"the ends: expected weights of one model, got \(3,"):
        stack_weights([w, torch.ones(2)], what="the ends")
    with pytest.raises(ll.NonFiniteError, match="the ends 1 holds NaN"):
        stack_weights([w, w * torch.nan], what="the ends")


def test_buffers_of_points_are_stacked_and_those_of_others_are_the_first_ones() -> None:
    points = [ll.Point(torch.ones(3), {"mean": torch.tensor([i])}) for i in (1.0, 2.0)]
    buffers = stack_weight_buffers([*points, torch.ones(3)])
    assert torch.equal(buffers["mean"], torch.tensor([[1.0], [2.0], [1.0]]))
    assert stack_weight_buffers([torch.ones(3)]) is None
