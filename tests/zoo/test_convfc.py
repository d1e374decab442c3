"""ConvFC: the contract, and the size that the paper tells."""

import torch

from lowland.zoo import ConvFC
from tests.zoo.contract import NetworkContract, size


class TestConvFC(NetworkContract):
    def make(self):
        return ConvFC(classes=4)


def test_its_size_is_the_papers():
    with torch.device("meta"):  # shapes alone
        assert size(ConvFC()) == 2_422_634
