"""Posteriors in subspaces of the networks that the study trained."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from job import Job, Sampling
from metrics import append_metrics, mean_metrics, predictive_metrics
from trajectories import train_papers

import lowland as ll
from lowland import samplers
from lowland.files import write_text
from lowland.records import Chain

RANK = 5
#: title -> subspace, sampler
METHODS = {
    "PCA + ESS": ("pca", "ess"),
    "PCA + VI": ("pca", "vi"),
    "PCA + NUTS": ("pca", "nuts"),
    "random + ESS": ("random", "ess"),
    "curve + ESS": ("curve", "ess"),
}


def subspace(kind: str, swag: ll.SWAG, curve: ll.Bezier | None = None) -> ll.Subspace | None:
    """A subspace of SGD iterates or of a curve; None where the iterates span too few dimensions."""
    if kind == "curve":
        assert curve is not None
        return ll.Subspace.from_curve(curve)
    if kind == "random":
        return ll.Subspace.random(swag.mean, rank=RANK)
    try:
        return ll.Subspace.pca(swag, rank=RANK)
    except ll.ConfigError:  # fewer than RANK dimensions
        return None


def sample(
    sub: ll.Subspace,
    surface: ll.LossSurface,
    sampler: str | samplers.Sampler,
    temperature: float,
    sampling: Sampling,
    *,
    prior_scale: float = 1.0,
    seed: int = 0,
) -> Chain:
    """Chains in a subspace, without the warnings that so few draws lead to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ll.infer(
            sub,
            surface,
            sampler=sampler,
            temperature=temperature,
            prior_scale=prior_scale,
            chains=sampling.chains,
            samples=sampling.samples,
            warmup=sampling.warmup,
            thin=2 if sampler == "nuts" else 5,
            seed=seed,
        )


def paper_temperature(name: str, examples: int) -> float:
    """The paper's temperature for a data set."""
    return {"boston": 0.1, "concrete": 1e4}.get(name, examples / 20)


def posteriors(
    kind: str,
    sampler: str | samplers.Sampler,
    swags: Sequence[ll.SWAG],
    surface: ll.LossSurface,
    temperature: float,
    sampling: Sampling,
    *,
    prior_scale: float = 1.0,
    curve: ll.Bezier | None = None,
) -> list[ll.Posterior]:
    """One posterior per network; the average alone where the iterates span too few dimensions."""
    posts: list[ll.Posterior] = []
    for seed, swag in enumerate(swags):
        sub = subspace(kind, swag, curve)
        if sub is None:
            posts.append(ll.PointMass(swag.mean))
            continue
        try:
            chain = sample(
                sub, surface, sampler, temperature, sampling, prior_scale=prior_scale, seed=seed
            )
        except ll.NonFiniteError:  # the network diverged
            posts.append(ll.PointMass(swag.mean))
            continue
        posts.append(chain.posterior())
    return posts


def tune_temperature(
    sub: ll.Subspace,
    surface: ll.LossSurface,
    validation: Any,
    sampling: Sampling,
    *,
    temperatures: Sequence[float],
    prior_scales: Sequence[float],
) -> tuple[float, float]:
    """The temperature and prior scale with the lowest NLL on validation examples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = ll.tune_temperature(
            sub,
            surface,
            validation,
            temperatures=temperatures,
            prior_scales=prior_scales,
            chains=sampling.chains,
            warmup=2 * sampling.warmup,
            samples=2,
        )
    return result.temperature, result.prior_scale


def papers_subspaces_stage(job: Job) -> dict[str, Any]:
    """Subspace posteriors from the networks of the papers stage, at the paper's temperatures."""
    if job.splits > job.protocol.subspace_splits:
        # other networks than those of a run with all splits
        out = job.out / f"{job.protocol.subspace_splits}-splits"
        job = replace(job, splits=job.protocol.subspace_splits, out=out)
    weights, swags, data, diverged = train_papers(job)
    methods: dict[str, dict[str, list[float]]] = {}
    sampling = job.protocol.sampling
    surfaces, tests = job.surfaces(data, "train"), job.surfaces(data, "test")
    start = time.perf_counter()
    for split, (surface, test) in enumerate(zip(surfaces, tests, strict=True)):
        members = range(split * job.modes, (split + 1) * job.modes)
        file = job.out / job.name / f"papers-subspaces-{split}.json"
        if file.is_file():
            append_metrics(methods, json.loads(file.read_text()))
            continue
        temperature = paper_temperature(job.name, len(data[split]["train"][0]))
        metrics: dict[str, dict[str, float]] = {}
        for title, (kind, sampler) in METHODS.items():
            if sampler == "vi":
                sampler = sampling.variational() or sampler
            # the paper's sampler for all networks, the others for one: they take long
            nets = [swags[m] for m in (members if title == "PCA + ESS" else members[:1])]
            curve = None
            if kind == "curve":
                curve = job.curve(data[split], weights[members[0]], weights[members[1]])
            posts = posteriors(kind, sampler, nets, surface, temperature, sampling, curve=curve)
            metrics[title] = mean_metrics(test, posts)
            if title == "PCA + ESS":
                metrics["PCA + ESS, five networks"] = predictive_metrics(test, ll.Mixture(posts))
        write_text(file, json.dumps(metrics))
        append_metrics(methods, metrics)
        elapsed = time.perf_counter() - start
        print(f"{job.name}: split {split + 1} of {job.splits}, {elapsed:.0f} s", flush=True)
    job.seconds["subspaces"] = time.perf_counter() - start
    return {"methods": methods, "lost": diverged, "splits": job.splits}
