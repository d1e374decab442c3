"""The log posterior on a plane of a subspace."""

from __future__ import annotations

import torch

import lowland as ll
from lowland import samplers
from tests.samplers.contract import short
from tests.samplers.linear_network import problem


@short
def test_the_log_posterior_on_a_plane():
    surface, sub, _ = problem(rank=3)
    chain = ll.infer(sub, surface, temperature=2.0, prior_scale=1.5, chains=4, samples=20)
    result = ll.posterior_plane(sub, surface, chain, coordinates=(0, 2), resolution=5)
    density = samplers.log_density(sub, surface, temperature=2.0, prior_scale=1.5)
    z = chain.mean.repeat(25, 1)
    z[:, 0], z[:, 2] = result.x.repeat(5), result.y.repeat_interleave(5)
    assert torch.allclose(result.log_density.flatten(), density(z), rtol=1e-5)
    single = ll.infer(sub, surface, prior_scale=1.5, chains=1, samples=1, warmup=5)
    result = ll.posterior_plane(sub, surface, single, resolution=3)
    assert (result.x.diff() - 1.5).abs().max() < 1e-6
