"""What a scan takes: memory that does not grow, and points and time as told beforehand."""

import gc
import inspect
from contextlib import suppress

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.landscape.job import ScanOptions
from tests.landscape.surfaces import net_surface, plane_of


def storages():
    """Bytes of the storages that python's tensors hold."""
    found = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, nn.Parameter):
            with suppress(NotImplementedError):  # a tensor under vmap has none
                storage = thing.untyped_storage()
                found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


@pytest.mark.usefixtures("new_objects")
@pytest.mark.parametrize("strategy", [None, "points"])
def test_memory_does_not_grow_with_the_grid(strategy):
    held = []

    class Watched(nn.Linear):
        def forward(self, x):
            held.append(storages())
            return super().forward(x)

    net = Watched(100_000, 2)
    surface = ll.LossSurface(
        net, ll.Classification(), [(torch.randn(2, 100_000), torch.tensor([0, 1]))]
    )
    plane = plane_of(surface)
    most = {}
    for resolution in (2, 5):
        held.clear()
        before = storages()
        ll.scan(plane, surface, resolution=resolution, strategy=strategy)
        most[resolution] = (max(held) - before) / (4 * surface.layout.size)
    assert most[5] <= most[2] + 0.01
    assert most[5] < 2.1  # weight vectors beside the anchors


def test_a_forecast_is_of_what_a_scan_does_by_itself():
    options, scan = (inspect.signature(one).parameters for one in (ScanOptions, ll.scan))
    assert len(options) > 8
    for name, option in options.items():
        assert scan[name].default == option.default


def test_what_a_scan_will_take_is_told_beforehand():
    surface = net_surface()
    plane = plane_of(surface)
    told = ll.forecast(plane, surface, resolution=(12, 9))
    assert (told.points, told.least) == (108, 108)
    assert told.seconds > 0
    assert "108 points" in str(told)
    seen = []
    found = ll.scan(plane, surface, resolution=(12, 9), progress=lambda *a: seen.append(a))
    assert seen[0] == (0, 108)
    assert seen[-1] == (108, 108)
    assert found.about["points"] == found.evaluations == 108
