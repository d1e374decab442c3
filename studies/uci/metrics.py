"""Metrics of posteriors on test examples, and the scale with the best validation NLL."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from job import SAMPLES, Job

import lowland as ll

SCALES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)


def method_metrics(
    job: Job,
    data: Sequence[dict[str, Any]],
    weights: torch.Tensor | None,  # (splits * modes, P), of SGD
    swags: Sequence[ll.SWAG],
    scales: Sequence[float],
) -> dict[str, dict[str, list[float]]]:
    """Test metrics: {method: {metric: a value per split}}."""
    surfaces = job.surfaces(data, "test")
    methods: dict[str, dict[str, list[float]]] = {}
    start = time.perf_counter()
    for split, surface in enumerate(surfaces):
        members = range(split * job.modes, (split + 1) * job.modes)
        gaussians = [swags[m].posterior(scale=scales[split]) for m in members]
        posteriors: dict[str, list[Any]] = {}
        if weights is not None:
            posteriors["SGD"] = [weights[m] for m in members]
            posteriors["Deep ensemble"] = [ll.Ensemble([weights[m] for m in members])]
        posteriors |= {
            "SWA": [swags[m].mean for m in members],
            "SWAG": gaussians,
            "SWA ensemble": [ll.Ensemble([swags[m].mean for m in members])],
            "MultiSWAG": [ll.Mixture(gaussians)],
        }
        append_metrics(
            methods, {title: mean_metrics(surface, posts) for title, posts in posteriors.items()}
        )
    job.seconds["predictions"] = time.perf_counter() - start
    return methods


def predictive_metrics(surface: ll.LossSurface, post: Any) -> dict[str, float]:
    names = ("nll_gaussian", "nll", "rmse", "coverage")
    samples = None if isinstance(post, torch.Tensor | ll.Ensemble) else SAMPLES
    try:
        pred = ll.predict(surface, post, samples=samples, keep="none", strategy="points")
    except ll.NonFiniteError:  # a draw with non-finite outputs
        return dict.fromkeys(names, math.nan)
    metrics = pred.metrics()
    return {name: metrics[name] for name in names}


def best_scale(surface: ll.LossSurface, swag: ll.SWAG, draws: int) -> tuple[float, float]:
    """The lowest NLL on the surface's examples, and its scale."""
    post, table = ll.tune_scale(
        surface,
        swag.posterior(),
        surface.data,
        scales=SCALES,
        samples=draws,
        strategy="points",
    )
    return float(table.nll.min()), post.scale


def mean_metrics(surface: ll.LossSurface, posts: Sequence[Any]) -> dict[str, float]:
    """The mean of each metric over networks or posteriors."""
    results = [predictive_metrics(surface, post) for post in posts]
    return {name: math.fsum(each[name] for each in results) / len(posts) for name in results[0]}


def append_metrics(
    methods: dict[str, dict[str, list[float]]], split_metrics: dict[str, dict[str, float]]
) -> None:
    """Appends the metrics of a split to the lists."""
    for title, metrics in split_metrics.items():
        for name, value in metrics.items():
            methods.setdefault(title, {}).setdefault(name, []).append(value)
