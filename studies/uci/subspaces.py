"""Posteriors in subspaces of the networks that the study trained."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from figures import figures, keep_figures, mean_of
from job import Job, Sampling
from walks import trained_as_papers

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
    """The subspace of a walk, or of a curve; None where the walk stood still."""
    if kind == "curve":
        assert curve is not None
        return ll.Subspace.from_curve(curve)
    if kind == "random":
        return ll.Subspace.random(swag.mean, rank=RANK)
    try:
        return ll.Subspace.pca(swag, rank=RANK)
    except ll.ConfigError:  # fewer dimensions than that
        return None


def sampled(
    sub: ll.Subspace,
    surface: ll.LossSurface,
    sampler: str | samplers.Sampler,
    temperature: float,
    sampling: Sampling,
    *,
    prior_scale: float = 1.0,
    seed: int = 0,
) -> Chain:
    """Chains in a subspace; that few draws of them disagree is no news."""
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


def temperature_of(name: str, rows: int) -> float:
    """The paper's."""
    return {"boston": 0.1, "concrete": 1e4}.get(name, rows / 20)


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
    """A posterior a network; where its walk spans too little, the average alone."""
    found: list[ll.Posterior] = []
    for seed, swag in enumerate(swags):
        sub = subspace(kind, swag, curve)
        if sub is None:
            found.append(ll.PointMass(swag.mean))
            continue
        try:
            chain = sampled(
                sub, surface, sampler, temperature, sampling, prior_scale=prior_scale, seed=seed
            )
        except ll.NonFiniteError:  # no finite density near the average: the network diverged
            found.append(ll.PointMass(swag.mean))
            continue
        found.append(chain.posterior())
    return found


def tuned(
    sub: ll.Subspace,
    surface: ll.LossSurface,
    validation: Any,
    sampling: Sampling,
    *,
    temperatures: Sequence[float],
    prior_scales: Sequence[float],
) -> tuple[float, float]:
    """The temperature and prior scale with the lowest NLL on held-out rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ll.tune_temperature(
            sub,
            surface,
            validation,
            temperatures=temperatures,
            prior_scales=prior_scales,
            chains=sampling.chains,
            warmup=2 * sampling.warmup,
            samples=2,
        )
    return found.temperature, found.prior_scale


def papers_subspaces(job: Job) -> dict[str, Any]:
    """Posteriors in subspaces of the networks of the papers' stage, at the paper's temperatures."""
    if job.splits > job.protocol.subspace_splits:
        # its networks are not those of a run of all splits
        out = job.out / f"{job.protocol.subspace_splits}-splits"
        job = replace(job, splits=job.protocol.subspace_splits, out=out)
    weights, swags, data, lost = trained_as_papers(job)
    methods: dict[str, dict[str, list[float]]] = {}
    sampling = job.protocol.sampling
    surfaces, tests = job.surfaces(data, "train"), job.surfaces(data, "test")
    began = time.perf_counter()
    for split, (surface, test) in enumerate(zip(surfaces, tests, strict=True)):
        mine = range(split * job.modes, (split + 1) * job.modes)
        own = [swags[m] for m in mine]
        file = job.out / job.name / f"papers-subspaces-{split}.json"
        if file.is_file():
            keep_figures(methods, json.loads(file.read_text()))
            continue
        temperature = temperature_of(job.name, len(data[split]["train"][0]))
        rows: dict[str, dict[str, float]] = {}
        for title, (kind, sampler) in METHODS.items():
            if sampler == "vi":
                sampler = sampling.variational() or sampler
            # of one network but for the sampler of the paper, for the time that they take
            curve, nets = None, own if title == "PCA + ESS" else own[:1]
            if kind == "curve":
                curve = job.curve(data[split], weights[mine[0]], weights[mine[1]])
            posts = posteriors(kind, sampler, nets, surface, temperature, sampling, curve=curve)
            rows[title] = mean_of(test, posts)
            if title == "PCA + ESS":
                rows["PCA + ESS, five networks"] = figures(test, ll.Mixture(posts))
        write_text(file, json.dumps(rows))
        keep_figures(methods, rows)
        seconds = time.perf_counter() - began
        print(f"{job.name}: split {split + 1} of {job.splits}, {seconds:.0f} s", flush=True)
    job.took["subspaces"] = time.perf_counter() - began
    return {"methods": methods, "lost": lost, "splits": job.splits}
