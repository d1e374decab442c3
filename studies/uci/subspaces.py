"""Posteriors in subspaces of the networks that the study trained."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

import lowland as ll
from lowland.records import Chain

RANK = 5
CHAINS, DRAWS = 16, 4  # of each chain, after warming up: 64 networks, of which 30 are averaged
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
    sub: ll.Subspace, surface: ll.LossSurface, sampler: str, temperature: float, *, seed: int = 0
) -> Chain:
    """Chains in a subspace; that few draws of them disagree is no news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ll.infer(
            sub,
            surface,
            sampler=sampler,
            temperature=temperature,
            chains=CHAINS,
            samples=DRAWS,
            warmup=100,
            thin=2 if sampler == "nuts" else 5,
            seed=seed,
        )


def temperature_of(name: str, rows: int) -> float:
    """The paper's."""
    return {"boston": 0.1, "concrete": 1e4}.get(name, rows / 20)


def posteriors(
    kind: str,
    sampler: str,
    swags: Sequence[ll.SWAG],
    surface: ll.LossSurface,
    temperature: float,
    *,
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
            chain = sampled(sub, surface, sampler, temperature, seed=seed)
        except ll.NonFiniteError:  # no finite density near the average: the network diverged
            found.append(ll.PointMass(swag.mean))
            continue
        found.append(chain.posterior())
    return found


def joined(
    w0: torch.Tensor,
    w1: torch.Tensor,
    net: torch.nn.Module,
    task: ll.Regression,
    rows: Any,
    *,
    batch_size: int,
    epochs: int,
    lr: float,
    decay: float,
) -> ll.Bezier:
    """A Bezier curve between two networks, trained as they were."""
    batches = ll.Batches(rows, batch_size=batch_size, seed=0)
    surface = ll.LossSurface(net, task, batches)
    return ll.fit(
        ll.Bezier.between(w0, w1),
        surface,
        epochs=epochs,
        optimizer=lambda p: torch.optim.SGD(p, lr=lr, momentum=0.9),
        weight_decay=decay,
        clip=1.0,
    )


def tuned_temperature(
    sub: ll.Subspace,
    surface: ll.LossSurface,
    validation: Any,
    sampler: str,
    temperatures: Sequence[float],
) -> tuple[float, float]:
    """The temperature with the lowest NLL on held-out rows, and that NLL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ll.tune_temperature(
            sub,
            surface,
            validation,
            temperatures=list(temperatures),
            sampler=sampler,
            chains=CHAINS,
            samples=2,
        )
    return found.temperature, float(found.nll[found.best])


def mean_of(
    figures: Callable[[ll.LossSurface, Any], dict[str, float]],
    surface: ll.LossSurface,
    posts: Sequence[ll.Posterior],
) -> dict[str, float]:
    """Figures of single networks' posteriors, their mean."""
    found = [figures(surface, post) for post in posts]
    return {name: math.fsum(one[name] for one in found) / len(found) for name in found[0]}


def keep_figures(
    methods: dict[str, dict[str, list[float]]], rows: dict[str, dict[str, float]]
) -> None:
    """Adds a split's figures to the lists."""
    for title, found in rows.items():
        for name, value in found.items():
            methods.setdefault(title, {}).setdefault(name, []).append(value)
