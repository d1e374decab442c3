"""Inference in a subspace of a linear network, whose posterior is Gaussian in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import lowland as ll
from lowland import samplers
from tests.samplers.contract import errors_of, short
from tests.samplers.linear_network import problem


@short
@pytest.mark.parametrize("sampler", ["ess", "slice", "nuts", "vi", "grid"])
def test_the_posterior_of_a_linear_network(sampler):
    surface, sub, truth = problem()
    mean, covariance, _ = truth(4.0, 1.5)
    options = {"chains": 32, "samples": 40, "warmup": 40}
    chain = ll.infer(sub, surface, sampler=sampler, temperature=4.0, prior_scale=1.5, **options)
    if sampler == "grid":
        sd = covariance.diagonal().sqrt()
        assert ((chain.mean - mean).abs() < 0.005 * sd).all()
        assert ((chain.covariance - covariance).abs() < 0.01 * sd[:, None] * sd).all()
        return
    first, second = errors_of(chain, mean, covariance)
    assert first.abs().max() < 4
    assert second.abs().max() < 4


def test_the_evidence_of_a_linear_network():
    surface, sub, truth = problem()
    log = truth(2.0, 1.5)[2]
    exact = ll.evidence(sub, surface, temperature=2.0, prior_scale=1.5)
    assert exact.method == "grid"
    assert exact.about["converged"]
    assert exact.about["moved"] < 0.005  # how far it may be off
    assert abs(exact.log_evidence - log) < 0.01
    sampled = ll.evidence(sub, surface, temperature=2.0, prior_scale=1.5, method="tempering")
    assert 0 < sampled.error < 0.3
    assert abs(sampled.log_evidence - log) < 4 * sampled.error


def test_the_evidence_is_unbiased():
    """Of Z itself, over many small runs; where half of the prior has no likelihood at all too."""
    from lowland.samplers.evidence import sequential_monte_carlo

    def half(z):
        inside = -0.5 * (z / 0.5).square().sum(1)
        return torch.where(z[:, 0] > 0.2, inside, -math.inf)

    density = samplers.Density(half, 1)
    truth = samplers.Grid(coarse=4800).run(density, samplers.Job()).log_evidence
    runs = [sequential_monte_carlo(density, particles=16, moves=2, seed=10 * i) for i in range(25)]
    ratios = torch.tensor([run.log_evidence - truth for run in runs]).exp()
    assert abs(float(ratios.mean()) - 1) < 3 * float(ratios.std()) / 25**0.5
    assert 0.5 < float(ratios.std()) / float(torch.tensor([r.error for r in runs]).mean()) < 2


def test_evidence_in_more_dimensions_prefers_the_subspace_that_holds_the_solution():
    surface, sub, truth = problem(rank=4)
    result = ll.evidence(sub, surface, seed=1)
    assert result.method == "tempering"
    assert abs(result.log_evidence - truth(1.0, 1.0)[2]) < 4 * result.error
    w = torch.linalg.lstsq(
        torch.cat([b.args[0] for b in surface.data]), torch.cat([b.target for b in surface.data])
    ).solution[:, 0]
    good = ll.evidence(ll.Subspace(w, sub.basis[:2]), surface)
    poor = ll.evidence(ll.Subspace(w + 5, sub.basis[:2]), surface)
    assert good.log_evidence > poor.log_evidence + 10
    for scale, message in ((None, "a flat prior has no integral"), ("tune", "got 'tune'")):
        with pytest.raises(ll.ConfigError, match=message):
            ll.evidence(sub, surface, prior_scale=scale)


def test_draws_are_weights_and_predict():
    surface, sub, truth = problem()
    chain = ll.infer(sub, surface, chains=4, samples=200)
    post = chain.posterior()
    _, off = sub.coords_of(post.sample(5))
    assert off.max() < 1e-5
    pred = ll.predict(surface, chain.posterior(), samples=200)
    mean, covariance, _ = truth(1.0, 1.0)
    x = next(iter(surface.data)).args[0].double()
    design = x @ sub.basis.double().T
    expected = (x @ sub.center.double()) + design @ mean
    spread = (design @ covariance * design).sum(1) + 0.3
    assert (pred.mean[:, 0] - expected).abs().max() < 0.1
    assert (pred.variance[:, 0] / spread - 1).abs().max() < 0.1


@short
def test_a_chain_on_disk_needs_its_subspace(tmp_path):
    surface, sub, _ = problem()
    chain = ll.infer(sub, surface, chains=2, samples=5)
    chain.save(tmp_path / "chain.npz")
    result = samplers_chain(tmp_path / "chain.npz")
    with pytest.raises(ll.ConfigError, match="give the subspace"):
        result.posterior()
    assert torch.equal(result.posterior(sub).draw(3), chain.posterior().draw(3))


def samplers_chain(path):
    from lowland.records import Chain

    return Chain.load(path)


@short
def test_a_stopped_run_goes_on_and_other_settings_are_refused(tmp_path, monkeypatch):
    surface, sub, _ = problem()
    first, file = tmp_path / "whole.safetensors", tmp_path / "chains.safetensors"
    # two runs that choose for themselves how points go together may differ in the last bit
    options = {"chains": 4, "samples": 20, "warmup": 10, "strategy": "points"}
    whole = ll.infer(sub, surface, **options, checkpoint=first)
    monkeypatch.setattr("lowland.samplers.job.EVERY", 0.0)

    def stop(done, total):
        if done > 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ll.infer(sub, surface, **options, checkpoint=file, progress=stop)
    again = ll.infer(sub, surface, **options, checkpoint=file)
    assert torch.equal(whole.coords, again.coords)
    more = ll.infer(sub, surface, **{**options, "samples": 30}, checkpoint=file)
    assert torch.equal(more.coords[:, :20], whole.coords)
    for other in ({"temperature": 2.0}, {"prior_scale": 2.0}, {"seed": 1}, {"sampler": "slice"}):
        with pytest.raises(ll.ConfigError, match="other settings"):
            ll.infer(sub, surface, **{**options, **other}, checkpoint=file)
    shifted = ll.Subspace(sub.center + 1e-3, sub.basis)
    with pytest.raises(ll.ConfigError, match="other settings"):
        ll.infer(shifted, surface, **options, checkpoint=file)
    others, _, _ = problem(seed=3)
    with pytest.raises(ll.ConfigError, match="other settings"):
        ll.infer(sub, others, **options, checkpoint=file)


@pytest.mark.parametrize(
    "sampler",
    [
        samplers.Variational(draws=4, steps=60, evidence_draws=20),
        samplers.Flow(layers=1, hidden=4, draws=4, steps=60, evidence_draws=20),
        samplers.Grid(),
        samplers.SGLD(),
    ],
    ids=lambda one: one.name,
)
@pytest.mark.filterwarnings("ignore:.*the ELBO was still rising", "ignore:the chains disagree")
def test_every_sampler_goes_on_where_it_was_stopped(sampler, tmp_path, monkeypatch):
    surface, sub, _ = problem(rank=1)
    # two runs that choose for themselves how points go together may differ in the last bit
    options = {"chains": 2, "samples": 5, "warmup": 20, "sampler": sampler, "strategy": "points"}
    calls = []
    whole = ll.infer(sub, surface, **options, progress=lambda done, total: calls.append(done))
    monkeypatch.setattr("lowland.samplers.job.EVERY", 0.0)

    def stop(done, total):
        stop.calls += 1
        if stop.calls == len(calls) // 2:
            raise KeyboardInterrupt

    stop.calls = 0
    file = tmp_path / "chains.safetensors"
    with pytest.raises(KeyboardInterrupt):
        ll.infer(sub, surface, **options, checkpoint=file, progress=stop)
    again = ll.infer(sub, surface, **options, checkpoint=file)
    assert torch.equal(whole.coords, again.coords)
    assert again.evaluations == whole.evaluations


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "gibbs"}, "expected one of ess"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"prior_scale": 0.0}, "prior_scale"),
        ({"prior_scale": None}, "Gaussian prior"),
        ({"temperature": "tune"}, "validation"),
        ({"temperature": [1.0, -1.0], "validation": []}, "a number above 0, got -1"),
        ({"temperature": "low", "validation": []}, "expected numbers or 'tune'"),
        ({"chains": 0}, "chains"),
        ({"start": torch.zeros(3)}, "start"),
    ],
)
def test_bad_input(options, message):
    surface, sub, _ = problem()
    with pytest.raises(ll.ConfigError, match=message):
        ll.infer(sub, surface, **options)


@pytest.mark.filterwarnings("ignore:.*the ELBO was still rising", "ignore:the chains disagree")
def test_independent_draws_are_fewer_than_those_of_chains():
    surface, sub, _ = problem()
    fit = samplers.Variational(draws=4, steps=50, evidence_draws=20)
    assert ll.infer(sub, surface, sampler=fit).coords.shape == (16, 100, 2)
    jobs = []

    class Recording(samplers.EllipticalSlice):
        def run(self, density, job):
            jobs.append(job)
            return super().run(density, replace(job, samples=3))

    for number in ({}, {"samples": 7}):
        ll.infer(sub, surface, sampler=Recording(), chains=1, warmup=0, **number)
    assert [job.samples for job in jobs] == [1000, 7]


def test_a_curve_is_not_flat():
    surface, sub, _ = problem()
    curve = ll.Bezier.between(sub.center, sub.center + 1)
    with pytest.raises(ll.ConfigError, match="from_curve"):
        ll.infer(curve, surface)


def test_no_finite_density_at_the_start():
    surface, sub, _ = problem()
    far = ll.Subspace(sub.center, sub.basis * 1e25)
    with pytest.raises(ll.NonFiniteError, match="start"):
        ll.infer(far, surface)


def test_weights_of_another_model():
    surface, _, _ = problem()
    with pytest.raises(ll.LayoutError):
        ll.infer(ll.Subspace(torch.zeros(3), torch.eye(3)), surface)
