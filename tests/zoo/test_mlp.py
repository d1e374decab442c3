"""MLP: the contract, and sizes."""

import pytest
import torch

import lowland as ll
from lowland.zoo import MLP
from tests.zoo.contract import NetworkContract, size


class TestMLP(NetworkContract):
    def make(self):
        return MLP(inputs=3 * 32 * 32, outputs=4, widths=(8, 8))


def test_sizes():
    with torch.device("meta"):  # shapes alone
        assert size(MLP(inputs=2, outputs=1, widths=(200, 50, 50, 50))) == 15_801
        assert size(MLP(inputs=3, outputs=2, widths=())) == 8


def test_an_activation_that_there_is_not():
    with pytest.raises(ll.ConfigError, match="relu"):
        MLP(inputs=1, outputs=1, activation="step")
