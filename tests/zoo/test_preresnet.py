"""PreResNet: the contract, and sizes layer by layer."""

import pytest
import torch

import lowland as ll
from lowland.zoo import PreResNet
from tests.zoo.contract import NetworkContract, conv, size


class TestBasicBlocks(NetworkContract):
    def make(self):
        return PreResNet(depth=8, classes=4, width=4)


class TestBottlenecks(NetworkContract):
    def make(self):
        return PreResNet(depth=11, classes=4, width=4, block="bottleneck")


def preresnet_size(depth: int, basic: bool, classes: int = 10) -> int:
    """Layer by layer, from the paper's table."""
    total, inputs = conv(3, 16, 3), 16
    for planes in (16, 32, 64):
        outputs = planes if basic else 4 * planes
        for number in range((depth - 2) // (6 if basic else 9)):
            if basic:
                total += 2 * inputs + conv(inputs, planes, 3) + 2 * planes + conv(planes, planes, 3)
            else:
                total += 2 * inputs + conv(inputs, planes, 1) + 2 * planes
                total += conv(planes, planes, 3) + 2 * planes + conv(planes, outputs, 1)
            if number == 0 and inputs != outputs:
                total += conv(inputs, outputs, 1)
            inputs = outputs
    return total + 2 * inputs + inputs * classes + classes


def test_sizes_are_the_papers():
    with torch.device("meta"):  # shapes alone
        assert size(PreResNet(depth=20)) == preresnet_size(20, True) == 272_282
        assert size(PreResNet(depth=110)) == preresnet_size(110, False) == 1_146_842
        assert size(PreResNet(depth=164)) == preresnet_size(164, False) == 1_703_258  # 1.7 million


def test_blocks_follow_the_depth_unless_given():
    with torch.device("meta"):  # 56 = 6 x 9 + 2 = 9 x 6 + 2
        assert size(PreResNet(depth=56)) == preresnet_size(56, False)
        assert size(PreResNet(depth=56, block="basic")) == preresnet_size(56, True)
        assert size(PreResNet(depth=20, block="bottleneck")) == preresnet_size(20, False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": 21}, "6n \\+ 2"),
        ({"depth": 2}, "6n \\+ 2"),
        ({"depth": 48}, "9n \\+ 2"),
        ({"block": "wide"}, "block: expected one of basic, bottleneck"),
    ],
)
def test_depths_that_make_no_network(options, words):
    with pytest.raises(ll.ConfigError, match=words):
        PreResNet(**options)
