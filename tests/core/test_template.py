"""A model as a function, for models with unusual forward passes."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.core.model_copy import private_copy
from tests.core.random_data import one_batch
from tests.models import (
    Lazy,
    TiedLM,
    blobs,
    images,
    spectral,
    spectral_by_hook,
    weight_norm_by_hook,
)


def test_a_forward_that_writes_to_its_parameters_does_not_write_to_w():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 4, max_norm=1.0), nn.Flatten(), nn.Linear(8, 3))
    data = [(torch.randint(6, (5, 2)), torch.tensor([0, 1, 2, 0, 1]))]
    surface = ll.LossSurface(model, ll.Classification(), data)
    w = 3 * torch.randn(surface.layout.size)
    before = w.clone()
    surface(w)
    ll.predict(surface, ll.Ensemble([w, w]))
    surface.value_and_grad(w, data[0])
    assert torch.equal(w, before)


def test_threads_take_turns_on_one_surface():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    surface = ll.LossSurface(model, ll.Classification(), one_batch())
    points = torch.randn(40, surface.layout.size)
    expected = [float(surface(w)) for w in points]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda w: float(surface(w)), points)) == expected


def test_private_copies_keep_ties_and_computed_tensors() -> None:
    model = TiedLM()
    twin = private_copy(model)
    assert twin.head.weight is twin.embed.weight
    assert twin.head.weight is not model.head.weight
    lazy = Lazy()
    lazy.cache = lazy.net[0].weight.sum()
    with pytest.raises(RuntimeError):  # a plain copy fails
        __import__("copy").deepcopy(lazy)
    assert private_copy(lazy).cache == lazy.cache


@pytest.mark.parametrize("build", [spectral, spectral_by_hook, weight_norm_by_hook])
def test_a_model_can_be_copied_after_weights_were_mapped_over(build):
    """A vmapped call left a hook's weight on the module, and `fit` could not copy it."""
    torch.manual_seed(0)
    net = build()
    x, y = blobs()[0] if build is weight_norm_by_hook else images()[0]
    surface = ll.LossSurface(net, ll.Classification(), [(x, y)])
    w = surface.layout.flatten(net)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*batching rule.*", category=UserWarning)
        surface.evaluate(torch.stack([w, w + 0.1]), strategy="vmap", chunk=2)
    copied = surface.template.trainable()
    torch.testing.assert_close(surface.layout.flatten(copied), w)
    assert copied(x).shape == (len(x), 3)
