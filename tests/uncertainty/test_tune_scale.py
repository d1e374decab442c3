"""The scale of a posterior, against Gaussians of a known one."""

import math

import pytest
import torch
from torch import nn

import lowland as ll
from tests.evaluate.test_predict import scattered, small
from tests.models import blobs


def linear_gaussian(scale, examples=4000):
    """Targets of a linear model whose weight has the variance `scale`."""
    g = torch.Generator().manual_seed(0)
    y = math.sqrt(scale + 0.01) * torch.randn(examples, 1, generator=g)
    net = nn.Linear(1, 1, bias=False)
    data = [(torch.ones(examples, 1), y)]
    return ll.LossSurface(net, ll.Regression(noise_variance=0.01), data), data


@pytest.mark.parametrize("truth", [0.1, 0.5, 2.0])
def test_the_scale_of_a_gaussian_is_recovered(truth):
    surface, data = linear_gaussian(truth)
    post = ll.Gaussian(torch.zeros(1), torch.ones(1))
    tuned, table = ll.tune_scale(surface, post, data, samples=300)
    assert tuned.scale == truth
    assert table.scale.tolist() == [0.0, 0.1, 0.25, 0.5, 1.0, 2.0]
    assert table.nll.argmin() == table.scale.tolist().index(truth)
    assert post.scale == 1.0  # the argument is unchanged


def test_only_the_validation_examples_are_read():
    surface, data = linear_gaussian(0.5)
    post = ll.Gaussian(torch.zeros(1), torch.ones(1))

    class Test(list):
        def __iter__(self):
            pytest.fail("the surface's own examples were read")

    other = ll.LossSurface(nn.Linear(1, 1, bias=False), surface.task, Test(data))
    tuned, _ = ll.tune_scale(other, post, data, samples=300)
    assert tuned.scale == 0.5


def test_every_scale_has_the_same_noise():
    surface, data = linear_gaussian(0.5, examples=20)
    post = ll.Gaussian(torch.zeros(1), torch.ones(1))
    counts = []
    report = lambda *pair: counts.append(pair)  # noqa: E731
    scales = (0.5, 0.5, 0.5000001)
    _, table = ll.tune_scale(surface, post, data, scales=scales, samples=2, seed=3, progress=report)
    assert counts == [(n, 6) for n in range(1, 7)]
    assert table.nll[0] == table.nll[1]
    assert table.nll[2] == pytest.approx(table.nll[0].item(), abs=1e-4)
    with pytest.raises(ll.ConfigError):
        ll.tune_scale(surface, post, data, scales=())


def test_swag_itself_can_be_tuned():
    _net, surface = small()
    swag = ll.SWAG(surface.layout, rank=2)
    for w in scattered(surface.layout, 4, 0.2):
        swag.update(w)
    a, table = ll.tune_scale(surface, swag, blobs(), samples=4)
    b, other = ll.tune_scale(surface, swag.posterior(), blobs(), samples=4)
    assert a.scale == b.scale
    torch.testing.assert_close(table.nll, other.nll)
    with pytest.raises(ll.ConfigError, match="scale"):
        ll.tune_scale(surface, ll.Ensemble(scattered(surface.layout, 2)), blobs())


def test_a_scale_that_overflows_is_not_chosen():
    surface, data = linear_gaussian(0.5, examples=20)
    post = ll.Gaussian(torch.zeros(1), torch.full((1,), 1e30))
    tuned, table = ll.tune_scale(surface, post, data, scales=(0.0, 1e30), samples=3)
    assert tuned.scale == 0.0
    assert table.nll[1] == math.inf


def test_examples_without_labels_are_refused():
    surface, data = linear_gaussian(0.5, examples=20)
    post = ll.Gaussian(torch.zeros(1), torch.ones(1))
    with pytest.raises(ll.DataError, match="targets"):
        ll.tune_scale(surface, post, [x for x, _ in data])


def test_no_scale_with_a_finite_nll():
    data = [(torch.ones(2, 1), torch.ones(2, 1))]
    surface = ll.LossSurface(nn.Linear(1, 1, bias=False), ll.Regression(noise_variance=1.0), data)
    post = ll.Gaussian(torch.full((1,), 3e38), torch.ones(1))
    with pytest.raises(ll.NonFiniteError, match="no scale gives a finite NLL"):
        ll.tune_scale(surface, post, data)
