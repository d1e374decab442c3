"""Fitted densities: more draws of a finished fit."""

from __future__ import annotations

import torch

from lowland.samplers import Job, Variational
from tests.samplers.contract import linear


def test_more_draws_of_a_finished_fit(tmp_path):
    path = tmp_path / "vi.safetensors"
    first = Variational().run(linear(2, 1.0)[0], Job(chains=1, samples=2, checkpoint=path))
    density = linear(2, 1.0)[0]
    more = Variational().run(density, Job(chains=2, samples=50, checkpoint=path))
    assert torch.equal(more.about["scale"], first.about["scale"])
    assert more.evaluations == first.evaluations + 98
