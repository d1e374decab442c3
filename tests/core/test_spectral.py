"""Vectors of spectral normalisation against singular value decompositions."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.core.spectral import leading_vectors
from tests.models import (
    images,
    resolve_task,
    spectral,
    spectral_by_hook,
)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (1, 6), (1100, 1030)])
def test_leading_vectors_are_those_of_a_svd(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, v = leading_vectors(matrix)
    sigma = torch.linalg.matrix_norm(matrix.double(), 2)
    torch.testing.assert_close(u @ matrix.double() @ v, sigma, rtol=1e-4, atol=0)
    if max(shape) < 1024:
        torch.testing.assert_close(matrix.double() @ v, sigma * u, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("build", [spectral, spectral_by_hook])
@pytest.mark.parametrize("strategy", ["points", "batches", "vmap"])
def test_spectral_norm_divides_by_the_norm_of_each_w(build, strategy):
    """The norm of an average is not the average of norms, and its singular vectors differ."""
    torch.manual_seed(0)
    net = build()
    surface = ll.LossSurface(net, ll.Classification(), images())
    w = surface.layout.flatten(net)
    other = w + 2 * torch.randn(len(w), generator=torch.Generator().manual_seed(2))
    stack = torch.stack([w, other, (w + other) / 2])
    expected = []
    for row in stack:
        twin = resolve_task(surface.layout.load_(build(), row))
        twin.load_state_dict(surface.refresh(row), strict=False)
        twin.eval()
        weight = twin[4].weight if build is spectral else twin[4].weight_orig
        if build is spectral:
            norm = torch.linalg.matrix_norm(weight.detach(), 2)
            torch.testing.assert_close(norm, torch.ones(()), rtol=1e-4, atol=0)
        losses = [nn.functional.cross_entropy(twin(x), y, reduction="sum") for x, y in images()]
        expected.append(
            float(torch.stack(losses).sum().detach()) / sum(len(y) for _, y in images())
        )
    losses = surface.evaluate(stack, strategy=strategy, chunk=2).loss
    assert losses.tolist() == pytest.approx(expected, rel=1e-4)
