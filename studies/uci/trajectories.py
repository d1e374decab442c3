"""SGD, SWA, SWAG and ensembles: the papers' settings, tuned ones, a falling learning rate."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import torch
from job import VALIDATION, Job, diverged_networks
from metrics import best_scale, method_metrics

import lowland as ll

LEARNING_RATES = (3e-3, 1e-2, 3e-2)
DECAYS = (1e-4, 1e-3, 1e-2, 3e-2)
FACTORS = (0.03, 0.1, 0.3)  # the last learning rate divided by the first
START = 0.75  # share of the budget before iterates of a falling learning rate are averaged


def papers_stage(job: Job) -> dict[str, Any]:
    """The papers' protocol: averages of the iterates of one SGD run; SGD is its last iterate."""
    weights, swags, data, diverged = train_papers(job)
    return {
        "methods": method_metrics(job, data, weights, swags, [1.0] * job.splits),
        "lost": diverged,
    }


def train_papers(
    job: Job,
) -> tuple[torch.Tensor, list[ll.SWAG], list[dict[str, Any]], list[list[int]]]:
    """Weights (M, P), moments, the splits, and (split, seed) of diverged networks."""
    protocol, data = job.protocol, job.data(0.0)
    networks = list(itertools.product(range(job.splits), range(job.modes)))

    def schedule(optimizer: torch.optim.Optimizer, steps: int) -> Any:
        change, factor = protocol.start * steps, protocol.walk_lr / protocol.lr
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 1.0 if step < change else factor
        )

    weights, (swags,), diverged = job.train(
        "papers",
        data,
        networks,
        epochs=protocol.epochs,
        lr=[protocol.lr] * len(networks),
        decay=[protocol.decay] * len(networks),
        schedule=schedule,
        windows=[(protocol.start / protocol.epochs, 1.0)],
    )
    return weights, swags, data, diverged_networks(networks, diverged)


def tuned_stage(job: Job) -> dict[str, Any]:
    """Settings of each split by validation NLL, then 5 networks per split on all its training
    examples."""
    grid = list(itertools.product(LEARNING_RATES, DECAYS))
    averaged, annealed = choose_settings(job, grid)
    data = job.data(0.0)
    networks = list(itertools.product(range(job.splits), range(job.modes)))
    settings = [averaged[split] for split, _ in networks]
    longest = max(job.protocol.budgets)
    _, windows, diverged = job.train(
        "tuned-walk",
        data,
        networks,
        epochs=longest,
        lr=[setting["lr"] for setting in settings],
        decay=[setting["decay"] for setting in settings],
        windows=WINDOWS,
    )
    swags = [windows[setting["window"]][m] for m, setting in enumerate(settings)]
    weights = torch.zeros(len(networks), swags[0].layout.size)
    sgd_diverged = [False] * len(networks)
    for epochs in sorted({setting["epochs"] for setting in annealed}):
        part = [m for m, (split, _) in enumerate(networks) if annealed[split]["epochs"] == epochs]
        part_networks = [networks[m] for m in part]
        weights[part], _, flags = job.train(
            f"tuned-sgd-{epochs}",
            data,
            part_networks,
            epochs=epochs,
            lr=[annealed[split]["lr"] for split, _ in part_networks],
            decay=[annealed[split]["decay"] for split, _ in part_networks],
            schedule=lambda o, steps, n=epochs: ll.DecaySchedule(o, total=n * steps),
        )
        for m, flag in zip(part, flags, strict=True):
            sgd_diverged[m] = flag
    methods = method_metrics(job, data, weights, swags, [setting["scale"] for setting in averaged])
    return {
        "methods": methods,
        "walk": averaged,
        "sgd": annealed,
        "lost": diverged_networks(
            networks, [a or b for a, b in zip(diverged, sgd_diverged, strict=True)]
        ),
    }


def falling_stage(job: Job) -> dict[str, Any]:
    """The tuned SGD of each split, with a lower learning rate in the last quarter of its budget."""
    record = json.loads((job.results / f"{job.name}-tuned.json").read_text())
    settings: list[dict[str, Any]] = record["sgd"]
    validation_data = job.data(VALIDATION)
    surfaces = job.surfaces(validation_data, "validation")
    draws = job.protocol.scale_draws
    trials: list[list[dict[str, Any]]] = [[] for _ in settings]
    for factor in FACTORS:
        networks = [(split, 0) for split in range(job.splits)]
        trial = [setting | {"factor": factor} for setting in settings]
        swags, diverged = train_falling(job, "fall-grid", validation_data, networks, trial)
        for split, setting in enumerate(trial):
            nll, scale = math.inf, 0.0
            if not diverged[split]:
                nll, scale = best_scale(surfaces[split], swags[split], draws)
            trials[split].append(setting | {"scale": scale, "nll": nll})
    best = [min(results, key=lambda result: result["nll"]) for results in trials]
    networks = list(itertools.product(range(job.splits), range(job.modes)))
    data = job.data(0.0)
    swags, diverged = train_falling(
        job, "fall", data, networks, [best[split] for split, _ in networks]
    )
    methods = method_metrics(job, data, None, swags, [setting["scale"] for setting in best])
    # SGD is that of the tuned stage, with its metrics
    tuned = {name: record["methods"][name] for name in ("SGD", "Deep ensemble")}
    return {"methods": tuned | methods, "walk": best, "lost": diverged_networks(networks, diverged)}


def train_falling(
    job: Job,
    run: str,
    data: Sequence[dict[str, Any]],
    networks: Sequence[tuple[int, int]],
    settings: Sequence[dict[str, Any]],  # of each network
) -> tuple[list[ll.SWAG], list[bool]]:
    """Moments at a learning rate that falls by `factor`, and whether each network diverged.

    Networks of equal factor and budget are trained together.
    """
    swags: dict[int, ll.SWAG] = {}
    diverged = [False] * len(networks)
    groups = {(setting["factor"], setting["epochs"]) for setting in settings}
    for factor, epochs in sorted(groups):
        part = [
            m
            for m, setting in enumerate(settings)
            if (setting["factor"], setting["epochs"]) == (factor, epochs)
        ]
        _, (moments,), flags = job.train(
            f"{run}-{factor}-{epochs}",
            data,
            [networks[m] for m in part],
            epochs=epochs,
            lr=[settings[m]["lr"] for m in part],
            decay=[settings[m]["decay"] for m in part],
            schedule=lambda o, steps, n=epochs, f=factor: ll.SWASchedule(
                o, total=n * steps, swa_lr=f, start=START
            ),
            windows=[(START, 1.0)],
        )
        swags |= dict(zip(part, moments, strict=True))
        for m, flag in zip(part, flags, strict=True):
            diverged[m] = flag
    return [swags[m] for m in range(len(networks))], diverged


#: shares of the longest budget in which iterates are averaged: the second halves of both budgets,
#: since a run at a constant learning rate begins with the shorter one
WINDOWS = [(0.25, 0.5), (0.5, 1.0)]


def choose_settings(
    job: Job, grid: list[tuple[float, float]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """For each split the averaged and the annealed settings with the lowest validation NLL."""
    data = job.data(VALIDATION)
    surfaces = job.surfaces(data, "validation")
    networks = [(split, 0) for split in range(job.splits) for _ in grid]
    settings = grid * job.splits
    lr, decay = ([setting[i] for setting in settings] for i in (0, 1))
    averaged: list[list[dict[str, Any]]] = [[] for _ in data]
    annealed: list[list[dict[str, Any]]] = [[] for _ in data]
    longest, draws = max(job.protocol.budgets), job.protocol.scale_draws
    _, windows, diverged = job.train(
        "grid-walk", data, networks, epochs=longest, lr=lr, decay=decay, windows=WINDOWS
    )
    for m, (split, _) in enumerate(networks):
        for window, epochs in enumerate(job.protocol.budgets):
            setting = {"lr": lr[m], "decay": decay[m], "epochs": epochs, "window": window}
            nll, scale = math.inf, 0.0
            if not diverged[m]:
                nll, scale = best_scale(surfaces[split], windows[window][m], draws)
            averaged[split].append(setting | {"scale": scale, "nll": nll})
    for epochs in job.protocol.budgets:
        weights, _, diverged = job.train(
            f"grid-sgd-{epochs}",
            data,
            networks,
            epochs=epochs,
            lr=lr,
            decay=decay,
            schedule=lambda o, steps, n=epochs: ll.DecaySchedule(o, total=n * steps),
        )
        for m, (split, _) in enumerate(networks):
            setting = {"lr": lr[m], "decay": decay[m], "epochs": epochs}
            nll = math.inf if diverged[m] else float(surfaces[split](weights[m]))
            nll += math.log(float(data[split]["task"].target_std))
            annealed[split].append(setting | {"nll": nll})
    best = [
        [min(results, key=lambda result: result["nll"]) for results in kind]
        for kind in (averaged, annealed)
    ]
    return best[0], best[1]
