"""A model whose parameters are views of one vector: its gradients are those of the surface."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.train.flat import FlatModel
from tests.models import blobs, mlp


def made(model=None):
    torch.manual_seed(0)
    surface = ll.LossSurface(model or mlp(), ll.Classification(), blobs())
    flat = FlatModel(surface)
    w = torch.randn(surface.layout.size, generator=torch.Generator().manual_seed(1))
    batch = blobs()[0]
    return surface, flat, w, batch


def test_writing_the_vector_changes_the_model_and_nothing_is_copied():
    surface, flat, w, (x, y) = made()
    flat.weights.copy_(w)
    named = surface.layout.unflatten(w)
    for (name, parameter), expected in zip(flat.module.named_parameters(), named.values(),
                                           strict=True):  # fmt: skip
        assert torch.equal(parameter, expected), name
        assert parameter.untyped_storage().data_ptr() == flat.weights.untyped_storage().data_ptr()
    assert float(nn.functional.cross_entropy(flat.module(x), y).detach()) == pytest.approx(
        float(surface.value_and_grad(w, (x, y))[0]), rel=1e-5
    )


@pytest.mark.parametrize(("scale", "decay"), [(1.0, 0.0), (0.25, 0.0), (2.0, 0.1)])
@pytest.mark.parametrize("add", [False, True])
def test_the_gradient_is_that_of_the_surface(scale, decay, add):
    surface, flat, w, batch = made()
    flat.load(w)
    before = torch.ones_like(w)
    gradient = before.clone()
    parts = surface.task.parts(batch)
    loss = flat.value_and_grad(
        parts, into=flat.views(gradient), scale=scale, decay=decay, add=add, check=True
    )
    value, exact = surface.value_and_grad(w, batch)
    assert float(loss) == pytest.approx(float(value), rel=1e-5)
    expected = scale * (exact + decay * w) + (before if add else 0)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_a_parameter_that_the_loss_does_not_see_has_its_decay_alone():
    net = mlp()
    net.register_parameter("unseen", nn.Parameter(torch.ones(3)))
    surface, flat, w, batch = made(net)
    flat.load(w)
    gradient = torch.full_like(w, 7.0)
    flat.value_and_grad(surface.task.parts(batch), into=flat.views(gradient), decay=0.5)
    unseen = surface.layout.unflatten(gradient)["unseen"]
    torch.testing.assert_close(unseen, 0.5 * surface.layout.unflatten(w)["unseen"])


def test_parameters_of_another_dtype_are_written_beside_the_vector():
    net = nn.Sequential(nn.Linear(6, 4).bfloat16(), nn.Linear(4, 3))
    surface = ll.LossSurface(net, ll.Classification())
    flat = FlatModel(surface)
    w = torch.randn(surface.layout.size, generator=torch.Generator().manual_seed(1))
    flat.load(w)
    first = flat.module[0].weight
    assert first.dtype == torch.bfloat16
    expected = surface.layout.unflatten(w)["0.weight"]
    torch.testing.assert_close(first.float(), expected.float(), rtol=1e-2, atol=1e-2)
    flat.load_state({"nowhere": torch.ones(1)})  # names that it has not are none of its business
