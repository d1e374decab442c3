"""Blocks of a shape's points against the points themselves."""

import torch

import lowland as ll
from lowland.evaluate.shape_blocks import ShapeBlocks
from tests.models import conv_bn, images


def test_blocks_are_the_points_and_their_buffers_where_these_differ() -> None:
    net = conv_bn()
    surface = ll.LossSurface(net, ll.Classification(), images((4,)))
    point = surface.point(net)
    moved = {name: b + 1 for name, b in point.buffers.items()}
    z = torch.tensor([[0.0], [0.25], [1.0]], dtype=torch.float64)
    plain = ll.Line(point, ll.Point(point.weights + 1, point.buffers))
    block = ShapeBlocks(plain, surface)(z)
    assert block.buffers is None
    assert torch.equal(block.weights, plain(z))
    line = ll.Line(point, ll.Point(point.weights + 1, moved))
    block = ShapeBlocks(line, surface)(z)
    for i, coords in enumerate(z):
        expected = line.point(coords)
        assert torch.equal(block[i].weights, expected.weights)
        for name, buffer in expected.buffers.items():
            torch.testing.assert_close(block[i].buffers[name], buffer)
