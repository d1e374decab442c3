"""Warnings point at the line that called lowland."""

import warnings

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.warn import warn

NET = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))


def still():
    """SWAG of nearly equal iterates."""
    swag = ll.SWAG(ll.ParamLayout(NET), rank=2)
    for step in range(3):
        swag.update(torch.ones(swag.layout.size) + 1e-6 * step)
    return swag


def wide():
    swag = ll.SWAG(ll.ParamLayout(NET), rank=5)
    for scale in (1.0, 2.0):
        swag.update(scale * torch.ones(swag.layout.size))
    return swag


@pytest.mark.parametrize(
    "call",
    [
        lambda: warn("something"),
        still().posterior,
        wide().posterior,
        lambda: ll.Subspace.pca(still(), rank=1),
        lambda: ll.fit_temperature(
            ll.records.Predictive(
                "classification", 1, probs=torch.eye(2), targets=torch.tensor([0, 1])
            )
        ),
    ],
    ids=["itself", "method", "rank", "classmethod", "function"],
)
def test_a_warning_points_at_the_callers_line(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert {one.filename for one in caught} == {__file__}


def test_decorators_of_torch_are_not_the_callers_line():
    @torch.no_grad()
    def inside():
        warn("something")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inside()
    assert caught[0].filename == __file__
