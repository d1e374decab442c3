import pytest
import torch
from torch import nn

from lowland.curvature.rescaling import Rescaling, find_rescaling
from lowland.zoo import PreResNet
from tests.curvature.nets import blobs, relu_net, surface_of
from tests.models import images


def rescaling_of(net, data=None):
    surface, point = surface_of(net, data)
    rescaling = find_rescaling(surface, surface.estimated(point), surface.data.first())
    if rescaling is not None:  # and it is one, on all examples
        for factor in (0.5, 2.0, 3.0):
            w = rescaling.apply(surface.layout, point.weights, factor)
            assert not torch.equal(w, point.weights)
            assert float(surface(w)) == pytest.approx(float(surface(point)), rel=1e-4)
    return rescaling


def test_relu_lets_a_scale_pass():
    assert rescaling_of(relu_net()) == Rescaling(("0.weight", "0.bias"), ("3.weight",))
    leaky = relu_net(between=lambda: nn.LeakyReLU(0.1))
    assert rescaling_of(leaky) is not None


@pytest.mark.parametrize("between", [nn.Tanh, nn.GELU, nn.Sigmoid], ids=lambda c: c.__name__)
def test_other_activations_let_none_pass(between):
    assert rescaling_of(relu_net(between=between)) is None


def test_a_norm_starts_a_scale_of_its_own():
    expected = Rescaling(("1.weight", "1.bias"), ("3.weight",))
    assert rescaling_of(relu_net(norm=nn.BatchNorm1d)) == expected
    layer = rescaling_of(relu_net(norm=nn.LayerNorm))  # which divides by any scale before it
    assert layer is not None
    assert {*expected.up} <= {*layer.up}


def test_a_network_of_one_layer_has_none():
    assert rescaling_of(nn.Linear(3, 3)) is None


def test_residual_networks_have_one():
    torch.manual_seed(0)
    net = PreResNet(depth=8, classes=3, width=4)
    x = [(torch.randn(6, 3, 8, 8), torch.arange(6) % 3)]
    rescaling = rescaling_of(net, x)  # inside a block: the residual sum has many layers
    assert rescaling.up == ("blocks.0.norm2.weight", "blocks.0.norm2.bias")
    assert rescaling.down == ("blocks.0.conv2.weight",)


def test_models_that_cannot_be_traced_have_none():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.embed, self.head = nn.Linear(3, 4), nn.Linear(4, 3)

        def forward(self, x):
            x = self.embed(x)[:, None]
            return self.head(self.attention(x, x, x, need_weights=False)[0][:, 0])

    assert rescaling_of(Attention(), blobs()) is None


def test_convolutions_with_pooling():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )
    assert rescaling_of(net, images()) == Rescaling(("0.weight", "0.bias"), ("4.weight",))
