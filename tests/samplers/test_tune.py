"""Temperatures that are chosen on validation rows."""

from __future__ import annotations

import math

import pytest
import torch

import lowland as ll
from lowland import samplers
from tests.samplers.contract import short
from tests.samplers.linear_network import problem


@short
def test_what_was_tuned_is_kept_for_a_run_that_goes_on(tmp_path, monkeypatch):
    surface, sub, _ = problem(rows=12, batch_size=12)
    other, _, _ = problem(seed=5)
    pairs = []

    class Quick(samplers.Slice):
        warmup = 4

        def run(self, density, job):
            if job.checkpoint is None:  # not the chains themselves
                pairs.append(density.temperature)
            return super().run(density, job)

    def run(temperature=(1.0, 30.0), **options):
        return ll.infer(
            sub,
            surface,
            sampler=Quick(max_steps=8),
            temperature=temperature,
            prior_scale=None,
            validation=[(b.args[0], b.target) for b in other.data],
            chains=2,
            samples=10,
            warmup=5,
            strategy="points",
            **{"checkpoint": tmp_path / "chains.safetensors"} | options,
        )

    def stop_at(done):
        def stop(now, total):
            if now >= done:
                raise KeyboardInterrupt

        return stop

    for done in (1, 21):  # after the first temperature, and among the chains' transitions
        with pytest.raises(KeyboardInterrupt):
            run(progress=stop_at(done))
    first, again = run(), run(torch.tensor([1.0, 30.0]))
    assert pairs == [30.0, 1.0]
    whole = run(checkpoint=None)
    assert torch.equal(first.about["tuning"]["nll"], whole.about["tuning"]["nll"])
    assert torch.equal(first.coords, whole.coords)
    assert first.about["tuning"]["evaluations"] == whole.about["tuning"]["evaluations"]
    assert first.prior_scale is None  # flat
    assert first.about["tuning"]["prior_scales"].tolist() == [math.inf] * 2
    assert torch.equal(first.coords, again.coords)
    assert torch.equal(first.about["tuning"]["nll"], again.about["tuning"]["nll"])
    with pytest.raises(ll.ConfigError, match=r"tuning: .*other settings \(temperatures: .*there"):
        run((first.temperature,))  # another question


@short
def test_a_temperature_is_chosen_on_validation_examples():
    surface, sub, _ = problem(rows=12, batch_size=12, noise=1.0)
    other, _, _ = problem(rows=200, batch_size=200, noise=1.0, seed=5)
    validation = [(b.args[0], b.target) for b in other.data]
    tuned = ll.tune_temperature(
        sub, surface, validation, temperatures=[0.01, 1.0, 100.0], chains=4, samples=20, warmup=50
    )
    assert tuned.nll.shape == (3,)
    assert tuned.evaluations > 3 * 4 * 20
    assert tuned.temperature == tuned.temperatures[tuned.nll.argmin()]
    chain = ll.infer(
        sub,
        surface,
        temperature=[0.01, 1.0, 100.0],
        validation=validation,
        chains=4,
        samples=10,
        warmup=50,
    )
    assert chain.temperature in (0.01, 1.0, 100.0)
    assert chain.about["tuning"]["evaluations"] > 0


@short
def test_the_error_of_a_tuned_nll_is_what_other_seeds_are_off_by():
    surface, sub, _ = problem(rows=12, batch_size=12, noise=1.0)
    other, _, _ = problem(rows=200, batch_size=200, noise=1.0, seed=5)
    rows = [(b.args[0], b.target) for b in other.data]
    options = {"temperatures": [3.0], "chains": 8, "samples": 10, "warmup": 20}
    results = [ll.tune_temperature(sub, surface, rows, **options, seed=seed) for seed in range(8)]
    assert all(one.samples == 80 for one in results)
    between = torch.cat([one.nll for one in results]).std()
    errors = torch.cat([one.nll_se for one in results]).mean()
    assert 0.4 < errors / between < 2.5
    few = ll.tune_temperature(sub, surface, rows, **options, draws=5)
    assert few.samples == 5
    assert few.nll_se is None
    options |= {"chains": 1}
    assert ll.tune_temperature(sub, surface, rows, **options).nll_se is None
