"""What every network of the zoo promises. Inherit, and supply `make`.

class TestMine(NetworkContract):
    def make(self):  # a small one: of images (N, 3, 32, 32), with four outputs
        return Mine(...)
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lowland as ll

IMAGES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def conv(inputs: int, outputs: int, kernel: int, bias: bool = False) -> int:
    """The size of a convolution."""
    return inputs * outputs * kernel**2 + (outputs if bias else 0)


class NetworkContract:
    def make(self) -> nn.Module:
        raise NotImplementedError

    def test_forward_backward_and_modes(self):
        torch.manual_seed(0)
        net = self.make()
        assert net(IMAGES).shape == (6, 4)
        net(IMAGES).square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in net.parameters() if p.requires_grad)
        net.eval()
        with torch.no_grad():
            plain = net(IMAGES)
            assert torch.equal(plain, net(IMAGES))  # no dropout, no batch statistics
            torch.testing.assert_close(net(IMAGES[:2]), plain[:2], rtol=1e-4, atol=1e-5)
            last = net.to(memory_format=torch.channels_last)
            images = IMAGES.to(memory_format=torch.channels_last)
            torch.testing.assert_close(last(images), plain, rtol=1e-4, atol=1e-5)
            with torch.autocast("cpu", torch.bfloat16):
                half = net(images)
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(
            half.float(), plain, rtol=0.1, atol=0.1 * plain.abs().max().item()
        )

    def test_the_surface_takes_it(self):
        torch.manual_seed(0)
        net = self.make()
        labels = torch.arange(6) % 4
        surface = ll.LossSurface(net, ll.Classification(), [(IMAGES, labels)])
        w = surface.layout.flatten(net)
        value, gradient = surface.value_and_grad(w)
        assert value.dtype == torch.float64
        # the gradient's direction lowers the loss, as its length says
        step = 1e-3 / gradient.norm()
        fall = float(value - surface(w - step * gradient))
        assert fall == pytest.approx(1e-3 * float(gradient.norm()), rel=0.2)
        assert torch.equal(surface.layout.flatten(net), w)
