"""Initialisations of the papers' networks."""

import math

import pytest
import torch
from torch import nn

from lowland.zoo import VGG16, PreResNet, WideResNet


def test_initialisations():
    torch.manual_seed(0)
    nets = {"vgg": VGG16(width=0.5), "preresnet": PreResNet(depth=20)}
    for name, net in nets.items():
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                expected = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
                few = 5 / math.sqrt(module.weight.numel())  # five standard errors and more
                assert module.weight.detach().std().item() == pytest.approx(expected, rel=few), name
                assert module.bias is None or not module.bias.any()
    wide = WideResNet(depth=10, width=2)
    for module in wide.modules():
        if isinstance(module, nn.Conv2d):
            fans = module.kernel_size[0] ** 2 * (module.in_channels + module.out_channels)
            bound = math.sqrt(2) * math.sqrt(6 / fans)
            assert 0.9 * bound < module.weight.detach().abs().max().item() <= bound
            assert not module.bias.any()
