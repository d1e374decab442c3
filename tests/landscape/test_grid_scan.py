"""The memory of a scan does not grow; its points and time are those of the forecast."""

import gc
import inspect
from contextlib import suppress

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.landscape.grid_scan import ScanOptions
from tests.landscape.surfaces import net_surface, plane_of


def storages():
    """Bytes of the storages that python's tensors hold."""
    result = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, nn.Parameter):
            with suppress(NotImplementedError):  # a tensor under vmap has none
                storage = thing.untyped_storage()
                result[storage.data_ptr()] = storage.nbytes()
    return sum(result.values())


@pytest.mark.usefixtures("new_objects")
@pytest.mark.parametrize("strategy", [None, "points"])
def test_memory_does_not_grow_with_the_grid(strategy):
    sizes = []

    class Watched(nn.Linear):
        def forward(self, x):
            sizes.append(storages())
            return super().forward(x)

    net = Watched(100_000, 2)
    surface = ll.LossSurface(
        net, ll.Classification(), [(torch.randn(2, 100_000), torch.tensor([0, 1]))]
    )
    plane = plane_of(surface)
    most = {}
    for resolution in (2, 5):
        sizes.clear()
        before = storages()
        ll.scan(plane, surface, resolution=resolution, strategy=strategy)
        most[resolution] = (max(sizes) - before) / (4 * surface.layout.size)
    assert most[5] <= most[2] + 0.01
    assert most[5] < 2.1  # weight vectors beside the anchors


def test_a_forecast_has_the_defaults_of_scan():
    options, scan = (inspect.signature(one).parameters for one in (ScanOptions, ll.scan))
    assert len(options) > 8
    for name, option in options.items():
        assert scan[name].default == option.default


def test_a_forecast_has_the_points_of_the_scan():
    surface = net_surface()
    plane = plane_of(surface)
    forecast = ll.forecast(plane, surface, resolution=(12, 9))
    assert (forecast.points, forecast.least) == (108, 108)
    assert forecast.seconds > 0
    assert "108 points" in str(forecast)
    seen = []
    result = ll.scan(plane, surface, resolution=(12, 9), progress=lambda *a: seen.append(a))
    assert seen[0] == (0, 108)
    assert seen[-1] == (108, 108)
    assert result.about["points"] == result.evaluations == 108
