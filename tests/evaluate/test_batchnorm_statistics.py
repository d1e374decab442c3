"""Which BatchNorm statistics and frozen parameters are refused or warned about."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.evaluate.batchnorm_statistics import (
    require_statistics,
    require_training_statistics,
    warn_about_frozen_parameters,
)
from tests.models import conv_bn, images

FROZEN, REFRESH = ll.EvalOptions(batchnorm="frozen"), ll.EvalOptions(batchnorm="refresh")


def batchnorm(data=None, **options):
    net = conv_bn()
    data = images() if data is None else data
    surface = ll.LossSurface(net, ll.Classification(), data, **options)
    return surface, surface.layout.flatten(net)


def test_shapes_between_networks_with_statistics_need_a_refresh():
    surface, w = batchnorm()
    points = [surface.point(conv_bn()), surface.point(conv_bn())]
    line = ll.Line(*points)
    require_statistics(line, surface, REFRESH)
    require_statistics(ll.Line(w, w + 1), surface, FROZEN)  # weights alone have no statistics
    with pytest.raises(ll.ConfigError, match=r"no statistics for points between .* the Line"):
        require_statistics(line, surface, FROZEN)


def test_statistics_of_the_predicted_examples_are_refused():
    surface, w = batchnorm()
    with pytest.raises(ll.DataError, match="examples that are being predicted"):
        require_training_statistics([w], surface, surface.data.loader, REFRESH)
    copy = [(x.clone(), y) for x, y in surface.data.loader]
    assert require_training_statistics([w], surface, copy, REFRESH) == [w]  # several batches
    assert require_training_statistics([w], surface, None, REFRESH) == [w]
    other, w = batchnorm(bn_loader=images())
    assert require_training_statistics([w], other, other.data.loader, REFRESH) == [w]


def test_a_copy_of_a_single_batch_is_the_same_request():
    batch = images()[:1]
    surface, w = batchnorm(batch)
    with pytest.raises(ll.DataError, match="being predicted"):
        require_training_statistics([w], surface, [(batch[0][0].clone(),)], REFRESH)
    other = [(batch[0][0] + 1,)]
    assert require_training_statistics([w], surface, other, REFRESH) == [w]


def test_no_point_of_an_iterator_is_lost():
    surface, w = batchnorm()
    points = require_training_statistics(iter([w, w + 1]), surface, None, REFRESH)
    assert torch.equal(torch.stack(list(points)), torch.stack([w, w + 1]))
    assert list(require_training_statistics(iter([]), surface, None, REFRESH)) == []


def test_other_frozen_parameters_than_those_of_the_posterior():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    data = [(torch.randn(5, 3), torch.randint(2, (5,)))]
    surface = ll.LossSurface(net, ll.Classification(), data, where="^1")
    post = ll.Ensemble([surface.point(net)])
    warn_about_frozen_parameters(surface, post)  # warnings are errors in tests
    swa = ll.SWA(surface.layout)
    swa.update(net)
    posterior = swa.posterior()
    warn_about_frozen_parameters(surface, posterior)
    with torch.no_grad():
        net[0].weight += 1
    other = ll.LossSurface(net, ll.Classification(), data, where="^1")
    with pytest.warns(UserWarning, match=r"not the surface's: 0\.weight"):
        warn_about_frozen_parameters(other, posterior)
