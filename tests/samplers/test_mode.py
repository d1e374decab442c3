"""Peaks by Newton's method."""

from __future__ import annotations

import torch

from lowland.samplers import Density, Job, Variational
from lowland.samplers.mode import find_mode


def test_a_peak_from_afar():
    """Not quadratic: log p is bounded in curvature, and concave."""
    density = Density(lambda z: -torch.cosh(z - 5.0).log().sum(1) * 1000, 2, prior_scale=None)
    mode, root = find_mode(density, torch.zeros(2).double(), 0.1)
    assert torch.allclose(mode, torch.full((2,), 5.0).double(), atol=1e-3)
    assert torch.allclose(root.diagonal(), torch.full((2,), 1000**-0.5).double(), rtol=0.01)


def test_a_kink_is_no_peak():
    """ReLUs in float32, from the origin, where the gradient is 0 by convention."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(30, 5, generator=generator)
    x = torch.randn(100, 30, generator=generator)
    y = torch.sin(x[:, 0])
    function = lambda z: -5 * (y - torch.relu(z.float() @ weights.T) @ x.T / 9).square().sum(1)  # noqa: E731
    density = Density(function, 5)
    assert not density.value_and_grad(torch.zeros(1, 5).double())[1].any()
    bounds = [
        Variational(whiten=whiten).run(Density(function, 5), Job(chains=1, samples=2))
        for whiten in (True, False)
    ]
    whitened, plain = (chain.log_evidence_bound for chain in bounds)
    assert whitened > plain - 0.2
    assert whitened > density(torch.zeros(1, 5).double()).item() + 5
