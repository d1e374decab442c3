"""The papers' networks: sizes known from the papers, and what the library needs of a model."""

import math

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.zoo import MLP, VGG16, ConvFC, PreResNet, WideResNet

IMAGES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))

#: small versions of each, and the images they take
SMALL = {
    "ConvFC": lambda: ConvFC(classes=4),
    "VGG16": lambda: VGG16(classes=4, width=1 / 16),
    "PreResNet-8": lambda: PreResNet(depth=8, classes=4, width=4),
    "PreResNet-11": lambda: PreResNet(depth=11, classes=4, width=4, block="bottleneck"),
    "WRN-10-1": lambda: WideResNet(depth=10, width=1, classes=4, dropout=0.1),
    "MLP": lambda: MLP(inputs=3 * 32 * 32, outputs=4, widths=(8, 8)),
}


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def conv(inputs: int, outputs: int, kernel: int, bias: bool = False) -> int:
    return inputs * outputs * kernel**2 + (outputs if bias else 0)


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


def test_sizes_are_the_papers():
    with torch.device("meta"):  # shapes alone
        assert size(VGG16()) == 15_253_578
        assert size(VGG16(classes=100)) == 15_253_578 + 90 * 513
        assert size(ConvFC()) == 2_422_634
        assert size(PreResNet(depth=20)) == preresnet_size(20, True) == 272_282
        assert size(PreResNet(depth=110)) == preresnet_size(110, False) == 1_146_842
        assert size(PreResNet(depth=164)) == preresnet_size(164, False) == 1_703_258  # 1.7 million
        assert size(WideResNet(depth=28, width=10)) == wideresnet_size(28, 10) == 36_489_290
        assert size(MLP(inputs=2, outputs=1, widths=(200, 50, 50, 50))) == 15_801
        assert size(MLP(inputs=3, outputs=2, widths=())) == 8


@pytest.mark.parametrize("name", SMALL)
def test_forward_backward_and_modes(name):
    torch.manual_seed(0)
    net = SMALL[name]()
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
    torch.testing.assert_close(half.float(), plain, rtol=0.1, atol=0.1 * plain.abs().max().item())


@pytest.mark.parametrize("name", SMALL)
def test_the_surface_takes_them(name):
    torch.manual_seed(0)
    net = SMALL[name]()
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


def test_blocks_follow_the_depth_unless_said():
    with torch.device("meta"):  # 56 = 6 x 9 + 2 = 9 x 6 + 2
        assert size(PreResNet(depth=56)) == preresnet_size(56, False)
        assert size(PreResNet(depth=56, block="basic")) == preresnet_size(56, True)
        assert size(PreResNet(depth=20, block="bottleneck")) == preresnet_size(20, False)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PreResNet(depth=21), "6n \\+ 2"),
        (lambda: PreResNet(depth=2), "6n \\+ 2"),
        (lambda: PreResNet(depth=48), "9n \\+ 2"),
        (lambda: PreResNet(block="wide"), "basic or bottleneck"),
        (lambda: WideResNet(depth=12), "6n \\+ 4"),
        (lambda: VGG16(width=0.001), "no channel"),
        (lambda: MLP(inputs=1, outputs=1, activation="step"), "relu"),
    ],
)
def test_sizes_that_make_no_network(make, words):
    with pytest.raises(ll.ConfigError, match=words):
        make()
