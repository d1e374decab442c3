import math

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.curvature.adaptive import AdaptiveSharpness, with_normalised_logits
from lowland.errors import ConfigError
from tests.curvature.nets import EIGENVALUES, MINIMUM, blobs, quadratic, relu_net, surface_of


def test_the_ball_has_the_weights_as_axes():
    weighted = EIGENVALUES * MINIMUM**2
    options = {"radius": 0.1, "invariance": False}
    ball = ll.sharpness(quadratic(), MINIMUM, kind=AdaptiveSharpness(steps=60), **options)
    assert float(ball) == pytest.approx(float(weighted.max()) * 0.1**2 / 2, rel=1e-4)
    box = ll.sharpness(quadratic(), MINIMUM, kind=AdaptiveSharpness(norm=math.inf), **options)
    assert float(box) == pytest.approx(float(weighted.sum()) * 0.1**2 / 2, rel=1e-6)


def test_eta_is_added_to_the_axes():
    axes = EIGENVALUES * (MINIMUM.abs() + 0.5) ** 2
    kind = AdaptiveSharpness(norm=math.inf, eta=0.5)
    result = ll.sharpness(quadratic(), MINIMUM, kind=kind, radius=0.1)
    assert float(result) == pytest.approx(float(axes.sum()) * 0.1**2 / 2, rel=1e-6)


@pytest.mark.parametrize("norm", [2, math.inf])
def test_it_is_invariant_without_eta_alone(norm):
    surface, point = surface_of(relu_net())
    for eta, expected in ((0.0, True), (0.01, False)):
        result = ll.sharpness(surface, point, kind=AdaptiveSharpness(eta=eta, norm=norm, steps=5))
        assert result.invariant is expected
        assert result.settings["eta"] == eta


def test_normalised_logits_have_unit_spread_and_ignore_the_last_layers_scale():
    net = relu_net()
    surface, point = surface_of(net)
    logits = net(blobs()[0][0]).detach()
    spread = logits.std(1, correction=0, keepdim=True)
    expected = nn.functional.cross_entropy(logits / spread, blobs()[0][1])
    normalised = with_normalised_logits(surface)
    assert float(normalised(point)) == pytest.approx(float(expected), rel=1e-5)
    assert float(surface(point)) != pytest.approx(float(expected))
    kind = AdaptiveSharpness(normalised_logits=True, steps=5)
    one = ll.sharpness(surface, point, kind=kind)
    with torch.no_grad():
        net[-1].weight *= 4
        net[-1].bias *= 4
    other = ll.sharpness(*surface_of(net), kind=kind)
    assert float(one) == pytest.approx(float(other), rel=1e-4)
    assert one.loss == pytest.approx(float(expected), rel=1e-5)


def test_bad_options_raise():
    with pytest.raises(ConfigError, match="eta"):
        AdaptiveSharpness(eta=-1)
    with pytest.raises(ConfigError, match="norm"):
        AdaptiveSharpness(norm=3)
    with pytest.raises(ConfigError, match="normalised_logits: expected multiclass"):
        ll.sharpness(quadratic(), MINIMUM, kind=AdaptiveSharpness(normalised_logits=True))
