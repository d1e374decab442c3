"""VGG16: the contract, and the size that the paper tells."""

import pytest
import torch

import lowland as ll
from lowland.zoo import VGG16
from tests.zoo.contract import NetworkContract, size


class TestVGG16(NetworkContract):
    def make(self):
        return VGG16(classes=4, width=1 / 16)


def test_its_size_is_the_papers():
    with torch.device("meta"):  # shapes alone
        assert size(VGG16()) == 15_253_578
        assert size(VGG16(classes=100)) == 15_253_578 + 90 * 513


def test_a_width_that_leaves_no_channel_is_refused():
    with pytest.raises(ll.ConfigError, match="no channel"):
        VGG16(width=0.001)
