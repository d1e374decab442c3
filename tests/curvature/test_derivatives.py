"""Operators with second derivatives in place of fused ones."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.curvature.derivatives import PlainWeightNorm, differentiable_operators


def test_weight_norm_by_parts_has_the_second_derivative_that_the_fused_one_lacks():
    """What is avoided; once the fused one is right, it need not be any more."""
    g = torch.Generator().manual_seed(0)
    v, size = (torch.randn(3, n, generator=g, dtype=torch.float64) for n in (4, 1))
    x = torch.randn(3, 4, generator=g, dtype=torch.float64)

    def fused(v):
        return (torch._weight_norm(v, size, 0) * x).sin().sum()

    def parts(v):
        return (v * (size / v.norm(dim=1, keepdim=True)) * x).sin().sum()

    gradients = (torch.autograd.functional.jacobian(f, v) for f in (fused, parts))
    torch.testing.assert_close(*gradients)
    expected = torch.autograd.functional.hessian(parts, v)
    theirs = torch.autograd.functional.hessian(fused, v)
    assert float((theirs - expected).norm() / expected.norm()) > 0.05
    with PlainWeightNorm():
        ours = torch.autograd.functional.hessian(fused, v)
    torch.testing.assert_close(ours, expected)


def test_attention_has_a_second_derivative():
    q = torch.randn(1, 1, 3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    attend = nn.functional.scaled_dot_product_attention

    def curvature():
        (gradient,) = torch.autograd.grad(attend(q, q, q).sin().sum(), q, create_graph=True)
        return torch.autograd.grad(gradient.sum(), q)[0]

    with pytest.raises(RuntimeError, match="not implemented"):
        curvature()
    with differentiable_operators(nn.Identity(), derivative="second derivative"):
        assert torch.isfinite(curvature()).all()


def test_settings_are_as_before_and_other_errors_pass():
    before = torch.backends.mha.get_fastpath_enabled()
    with (
        pytest.raises(RuntimeError, match="memory"),
        differentiable_operators(nn.Identity(), derivative="second derivative"),
    ):
        raise RuntimeError("out of memory")
    assert torch.backends.mha.get_fastpath_enabled() == before
    with (
        pytest.raises(ll.ConfigError, match="Identity has no forward derivative"),
        differentiable_operators(nn.Identity(), derivative="forward derivative"),
    ):
        raise NotImplementedError("Trying to use forward AD with something")
