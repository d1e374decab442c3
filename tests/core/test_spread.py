"""A warning for a trajectory that does not move, and none for one that moves little."""

import math
import warnings

import pytest
import torch
from torch import nn

import lowland as ll
from lowland import zoo
from lowland.core.spread import LEAST
from lowland.posteriors import Gaussian

TASK = ll.Classification()


@pytest.fixture(scope="module")
def train():
    """A small convolutional network with BatchNorm on digits, at a constant learning rate."""
    data = zoo.digits(train=0.2, validation=0.2, shift=2, seed=0)
    batches = ll.Batches(data["train"], batch_size=32, transform=data["transform"])
    torch.manual_seed(0)
    model = zoo.ConvNet(channels=1, widths=[8, 16], classes=10)
    ll.sgd(model, TASK, batches, epochs=5, optimizer=sgd(0.1))
    return model, batches, data


def sgd(lr):
    return lambda p: torch.optim.SGD(p, lr=lr, momentum=0.9, weight_decay=5e-4)


def adam(lr):
    return lambda p: torch.optim.AdamW(p, lr=lr)


def collect(train, optimizer, epochs=4, schedule=None, **options):
    """SWAG of the last 75% of a run from the trained weights."""
    start, batches, _ = train
    model = zoo.ConvNet(channels=1, widths=[8, 16], classes=10)
    model.load_state_dict(start.state_dict())
    swag = ll.SWAG(ll.ParamLayout(model), rank=2)
    total = epochs * len(batches)
    rule = ll.Every(4, total=total, **({"start": 0.25} | options))
    make = None if schedule is None else lambda o: schedule(o, total)
    collectors = [ll.Collector(swag, when=rule)]
    args = {"epochs": epochs, "optimizer": optimizer, "schedule": make, "collectors": collectors}
    ll.sgd(model, TASK, batches, **args)
    return swag


def cosine(optimizer, total):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (sgd(0.1), {}),
        (sgd(1e-3), {}),
        (sgd(0.1), {"schedule": cosine, "start": 0.75}),
        (adam(2e-5), {}),  # as in fine-tuning of large models
    ],
    ids=["sgd", "slow", "cosine", "adam"],
)
def test_no_warning_for_a_trajectory_that_moves(train, optimizer, options):
    swag = collect(train, optimizer, **options)
    post = swag.posterior()  # warnings are errors
    assert post.relative_spread > 2 * LEAST
    ll.Subspace.pca(swag, rank=1)


@pytest.mark.parametrize("lr", [1e-6, 1e-8, 0.0])
def test_a_trajectory_that_stands_still_is_a_warning_with_its_ratio(train, lr):
    """Steps of 1e-8 are smaller than float32 resolves, though some weights change."""
    swag = collect(train, sgd(lr))
    mean, variance = swag.mean.double(), swag.variance.double()
    ratio = math.sqrt(variance.sum()) / float(mean.norm())
    assert ratio < LEAST
    with pytest.warns(UserWarning, match=f"{ratio:.1g} of the norm .* learning rate is still high"):
        post = swag.posterior()
    surface = ll.LossSurface(train[0], TASK, [train[2]["train"]])
    validation = [train[2]["validation"]]
    with pytest.warns(UserWarning, match=r"all scales predict alike \(NLL \d\.\d+ to"):
        _, table = ll.tune_scale(surface, post, validation, scales=(0.0, 1.0, 2.0), samples=3)
    assert float(table.nll.max() - table.nll.min()) < 1e-3 * float(table.nll.min())
    if ratio:
        with pytest.warns(UserWarning, match="principal components are noise"):
            ll.Subspace.pca(swag, rank=1)


def test_the_end_of_a_cosine_is_a_warning(train):
    swag = collect(train, sgd(0.1), epochs=40, schedule=cosine, start=0.97)
    assert swag.count > 3
    with pytest.warns(UserWarning, match="hardly differ"):
        swag.posterior()


def test_the_spread_is_that_of_draws():
    g = torch.Generator().manual_seed(0)
    mean, variance = torch.randn(30, generator=g), torch.rand(30, generator=g)
    deviations = torch.randn(5, 30, generator=g)
    for post in (Gaussian(mean, variance, deviations, scale=0.7), Gaussian(mean, variance)):
        draws = post.sample(6_000) - mean
        expected = draws.double().square().sum(1).mean().sqrt() / mean.double().norm()
        assert post.relative_spread == pytest.approx(float(expected), rel=0.01)
    assert Gaussian(torch.zeros(2), torch.ones(2)).relative_spread == math.inf


def test_a_mixture_is_a_warning_only_if_every_component_stands_still():
    surface = ll.LossSurface(
        nn.Linear(1, 1, bias=False), ll.Regression(noise_variance=1.0), [(torch.ones(3, 1),) * 2]
    )
    still = Gaussian(torch.ones(1), torch.tensor([1e-16]))
    moving = Gaussian(torch.ones(1), torch.tensor([0.1]))
    ll.tune_scale(surface, ll.Mixture([still, moving]), surface.data)
    with pytest.warns(UserWarning, match="all scales predict alike"):
        ll.tune_scale(surface, ll.Mixture([still, still]), surface.data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ll.tune_scale(surface, still, surface.data, scales=(0.0,))  # no scale is chosen
        ll.tune_scale(surface, still, surface.data, scales=(0.0, 1e14))
