"""What is told of posteriors: figures on test rows, and the scale that held-out rows ask for."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from job import SAMPLES, Job

import lowland as ll

SCALES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)


def judged(
    job: Job,
    data: Sequence[dict[str, Any]],
    weights: torch.Tensor | None,  # (splits * modes, P): SGD's
    swags: Sequence[ll.SWAG],
    scales: Sequence[float],
) -> dict[str, dict[str, list[float]]]:
    """Figures on the test rows by method, a list over splits."""
    surfaces = job.surfaces(data, "test")
    methods: dict[str, dict[str, list[float]]] = {}
    began = time.perf_counter()
    for split, surface in enumerate(surfaces):
        mine = range(split * job.modes, (split + 1) * job.modes)
        gaussians = [swags[m].posterior(scale=scales[split]) for m in mine]
        rows: dict[str, list[Any]] = {}
        if weights is not None:
            rows["SGD"] = [weights[m] for m in mine]
            rows["Deep ensemble"] = [ll.Ensemble([weights[m] for m in mine])]
        rows |= {
            "SWA": [swags[m].mean for m in mine],
            "SWAG": gaussians,
            "SWA ensemble": [ll.Ensemble([swags[m].mean for m in mine])],
            "MultiSWAG": [ll.Mixture(gaussians)],
        }
        keep_figures(methods, {title: mean_of(surface, posts) for title, posts in rows.items()})
    job.took["predictions"] = time.perf_counter() - began
    return methods


def figures(surface: ll.LossSurface, post: Any) -> dict[str, float]:
    names = ("nll_gaussian", "nll", "rmse", "coverage")
    samples = None if isinstance(post, torch.Tensor | ll.Ensemble) else SAMPLES
    try:
        pred = ll.predict(surface, post, samples=samples, keep="none", strategy="points")
    except ll.NonFiniteError:  # a draw that the network does not survive
        return dict.fromkeys(names, math.nan)
    found = pred.metrics()
    return {name: found[name] for name in names}


def validated(surface: ll.LossSurface, swag: ll.SWAG) -> tuple[float, float]:
    """The lowest NLL on held-out rows, and the scale that has it."""
    post, table = ll.tune_scale(
        surface,
        swag.posterior(),
        surface.data,
        scales=SCALES,
        samples=SAMPLES,
        strategy="points",
    )
    return float(table.nll.min()), post.scale


def mean_of(surface: ll.LossSurface, posts: Sequence[Any]) -> dict[str, float]:
    """Figures of single networks or their posteriors, their mean."""
    found = [figures(surface, post) for post in posts]
    return {name: math.fsum(one[name] for one in found) / len(found) for name in found[0]}


def keep_figures(
    methods: dict[str, dict[str, list[float]]], rows: dict[str, dict[str, float]]
) -> None:
    """Adds a split's figures to the lists."""
    for title, found in rows.items():
        for name, value in found.items():
            methods.setdefault(title, {}).setdefault(name, []).append(value)
