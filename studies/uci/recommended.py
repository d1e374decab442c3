"""What this library recommends: settings and temperature by validation NLL, five networks."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from job import VALIDATION, Job, diverged_networks, relu_network
from metrics import append_metrics, best_scale, mean_metrics, predictive_metrics
from subspaces import posteriors, subspace, tune_temperature

import lowland as ll
from lowland import samplers
from lowland.files import write_text

#: shares of the budget that are averaged, at a constant and at a falling learning rate
HALVES, LAST = ((0.25, 0.5), (0.5, 1.0)), ((0.75, 1.0),)
HIDDEN = 50  # units per layer
TEMPERATURES = (1.0, 100.0, 1e4)
PRIOR_SCALES = (0.5, 1.0, 2.0)
#: at a temperature of 1 the surface is so rough that a Gaussian improves for minutes
VI = samplers.Variational(draws=32, steps=1000)


def budgets(job: Job) -> tuple[int, int]:
    """Epochs of the shorter and of the longer budget."""
    return job.protocol.grid.budgets or job.protocol.budgets


def train_networks(
    job: Job,
    run: str,
    data: Sequence[dict[str, Any]],
    networks: Sequence[tuple[int, int]],  # (split, seed) of each network
    settings: Sequence[dict[str, Any]],  # of each network
) -> tuple[list[torch.Tensor], list[list[ll.SWAG]], list[bool]]:
    """Last weights, moments of each window, and whether each network diverged.

    Networks of equal depth and factor are trained together.
    """
    weights: dict[int, torch.Tensor] = {}
    swags: dict[int, list[ll.SWAG]] = {}
    diverged = [False] * len(networks)
    epochs = max(budgets(job))
    for depth, factor in itertools.product(job.protocol.grid.depths, job.protocol.grid.factors):
        part = [
            m
            for m, setting in enumerate(settings)
            if (setting["depth"], setting["factor"]) == (depth, factor)
        ]
        if not part:
            continue

        def falling_stage(o: torch.optim.Optimizer, steps: int, factor: float = factor) -> Any:
            return ll.SWASchedule(o, total=epochs * steps, swa_lr=factor, start=LAST[0][0])

        last, windows, flags = job.train(
            f"{run}-{depth}-{factor:g}",
            data,
            [networks[m] for m in part],
            epochs=epochs,
            lr=[settings[m]["lr"] for m in part],
            decay=[settings[m]["decay"] for m in part],
            schedule=None if factor == 1 else falling_stage,
            windows=HALVES if factor == 1 else LAST,
            clip=job.protocol.grid.clip,
            make=lambda features, split, seed, depth=depth: relu_network(
                features, [HIDDEN] * depth, seed=1000 * split + seed
            ),
        )
        for i, m in enumerate(part):
            weights[m], diverged[m] = last[i], flags[i]
            swags[m] = [moments[i] for moments in windows]
    order = range(len(networks))
    return [weights[m] for m in order], [swags[m] for m in order], diverged


def surfaces(
    data: Sequence[dict[str, Any]], subset: str, settings: Sequence[dict[str, Any]]
) -> list[ll.LossSurface]:
    """The loss of each split over its training, validation or test examples, by its setting."""
    features = data[0]["train"][0].shape[1]
    return [
        ll.LossSurface(
            relu_network(features, [HIDDEN] * setting["depth"], seed=0),
            split["task"],
            [split[subset]],
        )
        for split, setting in zip(data, settings, strict=True)
    ]


def choose_settings(job: Job) -> list[dict[str, Any]]:
    """For each split the setting, window and scale whose SWAG has the lowest validation NLL; then
    the temperature and prior scale of PCA + ESS by the same rule."""
    data = job.data(VALIDATION)
    axes = job.protocol.grid
    grid = [
        {"depth": depth, "lr": lr, "decay": decay, "factor": factor}
        for depth, lr, decay, factor in itertools.product(
            axes.depths, axes.rates, axes.decays, axes.factors
        )
    ]
    networks = [(split, 0) for split in range(job.splits) for _ in grid]
    settings = grid * job.splits
    _, swags, diverged = train_networks(job, "best-grid", data, networks, settings)
    validation = {d: surfaces(data, "validation", [{"depth": d}] * job.splits) for d in axes.depths}
    options: list[list[tuple[dict[str, Any], ll.SWAG]]] = [[] for _ in data]
    for m, (split, _) in enumerate(networks):
        for window, swag in enumerate(swags[m]):
            nll, scale = math.inf, 0.0
            if not diverged[m]:
                surface = validation[settings[m]["depth"]][split]
                nll, scale = best_scale(surface, swag, job.protocol.scale_draws)
            epochs = budgets(job)[
                window - len(swags[m])
            ]  # the last window ends at the longer budget
            result = {"window": window, "epochs": epochs, "scale": scale, "nll": nll}
            options[split].append((settings[m] | result, swag))
    best = [min(pairs, key=lambda pair: pair[0]["nll"]) for pairs in options]
    train = surfaces(data, "train", [setting for setting, _ in best])
    for split, (setting, swag) in enumerate(best):
        sub = subspace("pca", swag)
        setting |= {"temperature": 1.0, "prior_scale": 1.0}
        if sub is not None:
            temperature, prior_scale = tune_temperature(
                sub,
                train[split],
                [data[split]["validation"]],
                job.protocol.sampling,
                temperatures=TEMPERATURES,
                prior_scales=PRIOR_SCALES,
            )
            setting |= {"temperature": temperature, "prior_scale": prior_scale}
        print(f"{job.name}: settings of split {split + 1} of {job.splits}", flush=True)
    return [setting for setting, _ in best]


def recommended_stage(job: Job) -> dict[str, Any]:
    """Five networks per split with its setting, and their posteriors."""
    start = time.perf_counter()
    settings = choose_settings(job)
    job.seconds["choice"] = time.perf_counter() - start
    data = job.data(0.0)
    networks = list(itertools.product(range(job.splits), range(job.modes)))
    network_settings = [settings[split] for split, _ in networks]
    weights, windows, diverged = train_networks(job, "best", data, networks, network_settings)
    swags = [
        moments[setting["window"]]
        for moments, setting in zip(windows, network_settings, strict=True)
    ]
    methods: dict[str, dict[str, list[float]]] = {}
    trains = surfaces(data, "train", settings)
    tests = surfaces(data, "test", settings)
    start = time.perf_counter()
    for split, (surface, test, setting) in enumerate(zip(trains, tests, settings, strict=True)):
        members = slice(split * job.modes, (split + 1) * job.modes)
        file = job.out / job.name / f"best-{split}.json"
        if not file.is_file():
            metrics = split_metrics(job, surface, test, setting, weights[members], swags[members])
            write_text(file, json.dumps(metrics))
        append_metrics(methods, json.loads(file.read_text()))
        print(f"{job.name}: split {split + 1} of {job.splits}", flush=True)
    job.seconds["predictions"] = time.perf_counter() - start
    return {"methods": methods, "walk": settings, "lost": diverged_networks(networks, diverged)}


def split_metrics(
    job: Job,
    surface: ll.LossSurface,
    test: ll.LossSurface,
    setting: dict[str, Any],
    weights: Sequence[torch.Tensor],
    swags: Sequence[ll.SWAG],
) -> dict[str, dict[str, float]]:
    """Metrics on the test examples of a split by method."""
    means = [swag.mean for swag in swags]
    gaussians = [swag.posterior(scale=setting["scale"]) for swag in swags]
    sampling = job.protocol.sampling
    options = {name: setting[name] for name in ("temperature", "prior_scale")}
    options["sampling"] = sampling
    ess = posteriors("pca", "ess", swags, surface, **options)
    # one network: it takes long
    vi = posteriors("pca", sampling.variational() or VI, swags[:1], surface, **options)
    return {
        "SGD": mean_metrics(test, weights),
        "Deep ensemble": predictive_metrics(test, ll.Ensemble(weights)),
        "SWA": mean_metrics(test, means),
        "SWA ensemble": predictive_metrics(test, ll.Ensemble(means)),
        "SWAG": mean_metrics(test, gaussians),
        "MultiSWAG": predictive_metrics(test, ll.Mixture(gaussians)),
        "PCA + VI": mean_metrics(test, vi),
        "PCA + ESS": mean_metrics(test, ess),
        "PCA + ESS, five networks": predictive_metrics(test, ll.Mixture(ess)),
    }
