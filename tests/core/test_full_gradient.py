"""The gradient over all examples against finite differences, through BatchNorm statistics."""

import pytest
import torch
from torch import Tensor, nn

import lowland as ll
from tests.core.test_batchnorm import batches_of
from tests.models import conv_bn, conv_dropout, generator, images, mlp


def directional(surface: ll.LossSurface, w: Tensor, d: Tensor, h: float = 1e-5) -> float:
    return float((surface(w + h * d) - surface(w - h * d)) / (2 * h))


@pytest.mark.parametrize("build", [conv_bn, conv_dropout, "plain"])
def test_the_gradient_over_the_loader_equals_finite_differences(build) -> None:
    torch.manual_seed(0)
    # tanh instead of ReLU: finite differences need a smooth function
    model = (mlp() if build == "plain" else build()).double()
    for i, layer in enumerate(model):
        if isinstance(layer, nn.ReLU):
            model[i] = nn.Tanh()
    data = [(x.double(), y) for x, y in images((7, 7, 4))]
    if build == "plain":
        data = [(x.flatten(1)[:, :6], y) for x, y in data]
    surface = ll.LossSurface(model, ll.Classification(), data)
    w = surface.layout.flatten(model)
    value, gradient = surface.value_and_grad(w)
    torch.testing.assert_close(value, surface(w), rtol=1e-12, atol=0)
    g = generator()
    for _ in range(4):
        d = torch.randn(len(w), generator=g, dtype=torch.float64)
        assert float(gradient @ d) == pytest.approx(directional(surface, w, d), rel=1e-6)
    if build == "plain":
        return
    # broken twin: the statistics held constant
    frozen = surface.value_and_grad(ll.Point(w, surface.refresh(w)), batchnorm="frozen")[1]
    assert float(frozen @ d) != pytest.approx(directional(surface, w, d), rel=1e-2)


def test_the_gradient_over_the_loader_with_a_bn_loader() -> None:
    model = conv_bn()
    data = [(x.double(), y) for x, y in images((7, 7, 4))]
    more = [(x.double(), y) for x, y in batches_of([65, 65])]
    surface = ll.LossSurface(model.double(), ll.Classification(), data, bn_loader=more)
    w = surface.layout.flatten(model)
    d = torch.randn(len(w), generator=generator(), dtype=torch.float64)
    gradient = surface.value_and_grad(w)[1]
    assert float(gradient @ d) == pytest.approx(directional(surface, w, d), rel=1e-6)
