"""Tasks against torch's losses and distributions."""

import math

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.core.task import unpack
from tests.models import generator

# -- classification --------------------------------------------------------------------------------


# -- regression ------------------------------------------------------------------------------------


# -- language --------------------------------------------------------------------------------------


# -- custom tasks, batches ------------------------------------------------------------------------


class Poisson(ll.Task):
    def nll(self, output, target):
        log_rate = output.squeeze(-1)
        return log_rate.exp() - target * log_rate + torch.lgamma(target + 1)


def test_a_custom_task_end_to_end() -> None:
    g = generator()
    x = torch.randn(40, 2, generator=g, dtype=torch.float64)
    y = torch.poisson((x @ torch.tensor([0.5, -0.3], dtype=torch.float64)).exp(), generator=g)
    model = nn.Linear(2, 1).double()
    surface = ll.LossSurface(model, Poisson(), [(x[:25], y[:25]), (x[25:], y[25:])])
    w = torch.zeros(3, dtype=torch.float64)
    for _ in range(200):
        w = w - 0.3 * surface.value_and_grad(w)[1]
    value, gradient = surface.value_and_grad(w)
    assert float(gradient.norm()) < 1e-6
    log_rate = (x @ w[:2] + w[2]).exp()
    assert float(value) == pytest.approx(
        float(-torch.distributions.Poisson(log_rate).log_prob(y).mean())
    )


class Reduced(ll.Task):
    def nll(self, output, target):
        return (output - target).square().mean()


def test_a_reduced_loss_is_an_error() -> None:
    surface = ll.LossSurface(nn.Linear(2, 1), Reduced(), [(torch.ones(3, 2), torch.ones(3, 1))])
    with pytest.raises(ll.DataError, match="do not reduce the loss"):
        surface(torch.zeros(3))


X, Y, Z = torch.zeros(2, 3), torch.zeros(2), torch.ones(2, 1)


@pytest.mark.parametrize(
    ("batch", "args", "kwargs", "target"),
    [
        ((X, Y), (X,), {}, Y),
        ([X, Y], (X,), {}, Y),
        ((X, Z, Y), (X, Z), {}, Y),
        ((X,), (X,), {}, None),
        (X, (X,), {}, None),
        ({"x": X, "labels": Y}, (), {"x": X}, Y),
        ({"x": X, "y": Y}, (), {"x": X}, Y),
        ({"x": X}, (), {"x": X}, None),
        (({"x": X, "z": Z}, Y), (), {"x": X, "z": Z}, Y),
        (({"x": X},), (), {"x": X}, None),
    ],
)
def test_batch_formats(batch, args, kwargs, target) -> None:
    batch_parts = unpack(batch)
    assert len(batch_parts.args) == len(args)
    assert all(a is b for a, b in zip(batch_parts.args, args, strict=True))
    assert batch_parts.kwargs.keys() == kwargs.keys()
    assert all(batch_parts.kwargs[key] is value for key, value in kwargs.items())
    assert batch_parts.target is target


def test_custom_unpacking() -> None:
    task = ll.Classification(unpack=lambda b: ((b["image"],), {}, b["digit"]))
    batch = {"image": torch.zeros(2, 3), "digit": torch.tensor([0, 1])}
    surface = ll.LossSurface(nn.Linear(3, 2), task, [batch])
    assert float(surface(torch.zeros(8))) == pytest.approx(math.log(2))
    with pytest.raises(ll.DataError, match="empty tuple"):
        unpack(())


def test_outputs() -> None:
    task = ll.Classification()
    assert task.output(X) is X
    assert task.output({"logits": X}) is X
    assert task.output((X, None)) is X
    assert task.output(type("Out", (), {"logits": X})()) is X
    with pytest.raises(ll.DataError, match=r"override Task.output"):
        task.output({"scores": X})
