"""What fitted densities share: Pareto's k, and steps that run out."""

from __future__ import annotations

import pytest
import torch

from lowland.samplers import Density, Job, Variational
from lowland.samplers.elbo import pareto_khat
from tests.samplers.contract import linear


def test_khat_distinguishes_heavy_tails_from_light_ones():
    density = Density(lambda z: -1.5 * (1 + z[:, 0] ** 2 / 2).log(), 1, prior_scale=None)
    with pytest.warns(UserWarning, match="not near the posterior"):
        heavy = Variational().run(density, Job(chains=1, samples=2)).about["khat"]
    exact = Variational().run(linear(1, 1.0)[0], Job(chains=1, samples=2)).about["khat"]
    assert heavy > 0.7 > exact
    assert pareto_khat(torch.zeros(10)) == 0.0


def test_steps_that_run_out_warn():
    with pytest.warns(UserWarning, match="raise steps=20"):
        chain = Variational(steps=20).run(linear(2, 1.0)[0], Job(chains=1, samples=2))
    assert chain.about["steps"] == len(chain.about["elbo"]) == 20
