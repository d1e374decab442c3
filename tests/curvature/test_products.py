"""Products of one batch by both methods, against dense matrices of torch.func."""

import pytest
import torch

from lowland.curvature.products import METHODS, BatchLoss, gauss_newton, hessian


def outputs(w):  # (6,) -> (4, 2)
    x = torch.linspace(-1, 1, 8, dtype=w.dtype).reshape(4, 2)
    return torch.tanh(x @ w[:4].reshape(2, 2)) * w[4:].exp()


def loss(f):
    return torch.logsumexp(f, 1).sum() + (f[:, 0] ** 4).sum()


W = torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
VECTORS = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("method", METHODS)
def test_the_hessian_is_that_of_torch_func(method):
    matrix = torch.func.hessian(lambda w: loss(outputs(w)))(W)
    result = hessian(BatchLoss(outputs, loss), W, VECTORS, method)
    torch.testing.assert_close(result, VECTORS @ matrix)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("plain", [False, True])
def test_gauss_newton_is_the_jacobians_product(method, plain):
    jacobian = torch.func.jacrev(outputs)(W).reshape(8, 6)
    inner = torch.eye(8).double()
    if not plain:
        inner = torch.func.hessian(loss)(outputs(W)).reshape(8, 8)
    batch = BatchLoss(outputs, None if plain else loss)
    result = gauss_newton(batch, W, VECTORS, method)
    torch.testing.assert_close(result, VECTORS @ jacobian.T @ inner @ jacobian)


@pytest.mark.parametrize("method", METHODS)
def test_what_does_not_depend_on_the_weights_has_no_curvature(method):
    constant = BatchLoss(lambda w: torch.ones(3).double(), lambda f: f.sum())
    linear = BatchLoss(lambda w: w, lambda f: f.sum())
    for batch in (constant, linear):
        assert not hessian(batch, W, VECTORS, method).any()
        assert not gauss_newton(batch, W, VECTORS, method).any()
