"""The log density of coordinates in a subspace."""

from __future__ import annotations

import torch
from torch import nn

import lowland as ll
from lowland import samplers
from tests.samplers.linear_network import problem


def test_batches_and_their_order_do_not_matter():
    surface, sub, _ = problem(rows=41, batch_size=41)
    z = torch.randn(6, sub.k, dtype=torch.float64)
    whole = samplers.log_density(sub, surface)(z)
    for size in (1, 7, 40):
        parts, _, _ = problem(rows=41, batch_size=size)
        values = samplers.log_density(sub, parts)(z)
        assert ((values - whole) / whole).abs().max() < 1e-6
        back = ll.LossSurface(
            nn.Linear(4, 1, bias=False),
            ll.Regression(noise_variance=0.3),
            [(b.args[0], b.target) for b in reversed(list(parts.data))],
        )
        assert ((samplers.log_density(sub, back)(z) - whole) / whole).abs().max() < 1e-6


def test_minibatches_are_unbiased():
    surface, sub, _ = problem(batch_size=10)
    density = samplers.log_density(sub, surface, temperature=2.0, prior_scale=1.5)
    z = torch.randn(3, sub.k, dtype=torch.float64)
    value, gradient = density.value_and_grad(z)
    each = [density.minibatch(z, step) for step in range(400)]
    assert len({float(v[0]) for v, _ in each}) == 4  # of the four batches
    distinct = {float(v[0]): (v, g) for v, g in each}
    assert torch.allclose(torch.stack([v for v, _ in distinct.values()]).mean(0), value, rtol=1e-6)
    assert torch.allclose(
        torch.stack([g for _, g in distinct.values()]).mean(0), gradient, rtol=1e-4, atol=1e-5
    )
    other = samplers.log_density(sub, surface, temperature=2.0, prior_scale=1.5, seed=1)
    again = [float(other.minibatch(z, step)[0][0]) for step in range(20)]
    assert again != [float(v[0]) for v, _ in each[:20]]  # another seed, another order
