"""WideResNet: the contract, and its size layer by layer."""

import pytest
import torch

import lowland as ll
from lowland.zoo import WideResNet
from tests.zoo.contract import NetworkContract, conv, size


class TestWideResNet(NetworkContract):
    def make(self):
        return WideResNet(depth=10, width=1, classes=4, dropout=0.1)


def wideresnet_size(depth: int, width: int, classes: int = 10) -> int:
    total, inputs = conv(3, 16, 3, bias=True), 16
    for planes in (16 * width, 32 * width, 64 * width):
        for number in range((depth - 4) // 6):
            total += 2 * inputs + conv(inputs, planes, 3, True)
            total += 2 * planes + conv(planes, planes, 3, True)
            if number == 0 and inputs != planes:
                total += conv(inputs, planes, 1, True)
            inputs = planes
    return total + 2 * inputs + inputs * classes + classes


def test_its_size_is_the_papers():
    with torch.device("meta"):  # shapes alone
        assert size(WideResNet(depth=28, width=10)) == wideresnet_size(28, 10) == 36_489_290


def test_a_depth_that_makes_no_network():
    with pytest.raises(ll.ConfigError, match="6n \\+ 4"):
        WideResNet(depth=12)
