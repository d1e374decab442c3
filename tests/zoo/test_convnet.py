"""ConvNet: the contract, and images of any size."""

import torch

from lowland.zoo import ConvNet
from tests.zoo.contract import NetworkContract


class TestConvNet(NetworkContract):
    def make(self):
        return ConvNet(channels=3, widths=(4, 6), classes=4)


def test_blocks_and_sizes_of_images():
    net = ConvNet(channels=3, widths=(4, 6), classes=5)
    assert net(torch.zeros(2, 3, 9, 8)).shape == (2, 5)
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules()) == 2
    assert ConvNet()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    net(torch.randn(4, 3, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
