"""Linear layers of many weight vectors: those of torch, under vmap, gradients and frozen parts."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lowland as ll
from lowland.evaluate.batched_linear import BatchedLinearMode, linear


def values(rows, weights, bias=True):
    torch.manual_seed(0)
    x = torch.randn(*rows, 3)
    w, b = torch.randn(*weights, 4, 3), torch.randn(*weights, 4) if bias else None
    return x, w, b


@pytest.mark.parametrize("rows", [(5,), (40,), (2, 5), (2, 3, 5), ()])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("inputs", [None, 0])
@pytest.mark.parametrize("grad", [True, False])
def test_each_is_torchs_own(rows, bias, inputs, grad):
    x, w, b = values((7, *rows) if inputs == 0 else rows, (7,), bias)
    expected = torch.stack(
        [F.linear(x[i] if inputs == 0 else x, w[i], b[i] if bias else None) for i in range(7)]
    )
    with torch.set_grad_enabled(grad), BatchedLinearMode():
        if bias:
            result = torch.func.vmap(F.linear, (inputs, 0, 0))(x, w, b)
        else:
            result = torch.func.vmap(F.linear, (inputs, 0))(x, w)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_a_bias_alone_that_is_mapped_over():
    x, w, _ = values((5,), ())
    b = torch.randn(7, 4)
    with torch.no_grad(), BatchedLinearMode():
        result = torch.func.vmap(lambda b: F.linear(x, w, b))(b)
    torch.testing.assert_close(result, torch.stack([F.linear(x, w, one) for one in b]))


@pytest.mark.parametrize("rows", [5, 40])
def test_gradients_flow_under_vmap(rows):
    x, w, b = values((rows,), (7,))

    def loss(w, b):
        return torch.relu(F.linear(x, w, b)).square().sum()

    mapped = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)))
    with BatchedLinearMode():
        result = mapped(w, b)
    for one, expected in zip(result, mapped(w, b), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-4)


def test_autocast_computes_in_its_own_type():
    x, w, b = values((5,), ())
    with BatchedLinearMode(), torch.autocast("cpu", torch.bfloat16):
        assert F.linear(x, w, b).dtype == torch.bfloat16
    assert linear(x, w, b).dtype == torch.float32


class Views(nn.Module):
    """Puts rows and units into one dimension by `view`, which rows that lie last have not."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.second(self.first(x).view(-1).view(len(x), 4))


def test_views_of_what_a_layer_gives():
    rows = [(torch.randn(6, 3), torch.randint(2, (6,)))]
    surface = ll.LossSurface(Views(), ll.Classification(), rows)
    weights = torch.randn(5, surface.layout.size)
    result = [surface.evaluate(weights, strategy=s).loss for s in ("points", "vmap")]
    torch.testing.assert_close(*result, rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match="view"):  # the twin
        linear(torch.randn(6, 3), torch.randn(4, 3), torch.randn(4)).view(-1)
