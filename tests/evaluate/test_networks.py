"""Outputs of a chunk of networks, against each network alone."""

import pytest
import torch

import lowland as ll
from lowland.evaluate.networks import networks, stack_points, vmap_forward
from lowland.evaluate.weights import Block
from tests.models import conv_bn, images

N = 3
OPTIONS = {name: ll.EvalOptions(batchnorm=name) for name in ("refresh", "frozen")}


def setting():
    net = conv_bn()
    surface = ll.LossSurface(net, ll.Classification(), images())
    w = surface.layout.flatten(net)
    noise = torch.randn(N, len(w), generator=torch.Generator().manual_seed(0))
    return surface, w + 0.1 * noise


@pytest.mark.parametrize("vmap", [False, True])
@pytest.mark.parametrize("batchnorm", OPTIONS)
@pytest.mark.parametrize("as_block", [False, True])
def test_outputs_are_those_of_each_network_alone(vmap, batchnorm, as_block):
    surface, weights = setting()
    points = Block(weights) if as_block else [ll.Point(w) for w in weights]
    x = images()[0][0]
    with torch.no_grad():
        outputs = networks(surface, points, OPTIONS[batchnorm], vmap=vmap)((x,), {})
        expected = [
            surface.forward(
                surface.layout.materialise(w),
                surface.buffers_for(ll.Point(w), OPTIONS[batchnorm]),
                (x,),
                {},
            )
            for w in weights
        ]
    torch.testing.assert_close(outputs, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_points_keep_their_own_buffers_when_frozen():
    surface, weights = setting()
    buffers = [surface.refresh(w) for w in weights]
    points = [ll.Point(w, b) for w, b in zip(weights, buffers, strict=True)]
    parameters, stacked = stack_points(surface, points, OPTIONS["frozen"])
    for name, values in stacked.items():
        torch.testing.assert_close(values, torch.stack([b[name] for b in buffers]))
    x = images()[0][0]
    with torch.no_grad():
        outputs = vmap_forward(surface, parameters, stacked, (x,), {})
        expected = [
            surface.forward(surface.layout.materialise(p.weights), p.buffers, (x,), {})
            for p in points
        ]
    torch.testing.assert_close(outputs, torch.stack(expected), rtol=1e-4, atol=1e-5)
