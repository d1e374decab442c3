"""SGD, SWA, SWAG and their ensembles: by the papers' settings, tuned, and at a rate that falls."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import torch
from figures import judged, validated
from job import HELD, Job, named

import lowland as ll

RATES = (3e-3, 1e-2, 3e-2)
DECAYS = (1e-4, 1e-3, 1e-2, 3e-2)
FACTORS = (0.03, 0.1, 0.3)  # of the first rate: what it falls to
START = 0.75  # of the budget: where a walk at a fallen rate begins to be averaged


def papers(job: Job) -> dict[str, Any]:
    """The papers' protocol: one walk a network; SGD is its last iterate."""
    weights, swags, data, lost = trained_as_papers(job)
    return {"methods": judged(job, data, weights, swags, [1.0] * job.splits), "lost": lost}


def trained_as_papers(
    job: Job,
) -> tuple[torch.Tensor, list[ll.SWAG], list[dict[str, Any]], list[list[int]]]:
    """Weights (M, P), moments, the splits, and (split, seed) of what diverged."""
    protocol, data = job.protocol, job.data(0.0)
    which = list(itertools.product(range(job.splits), range(job.modes)))

    def schedule(optimizer: torch.optim.Optimizer, steps: int) -> Any:
        change, factor = protocol.start * steps, protocol.walk_lr / protocol.lr
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 1.0 if step < change else factor
        )

    weights, (swags,), lost = job.train(
        "papers",
        data,
        which,
        epochs=protocol.epochs,
        lr=[protocol.lr] * len(which),
        decay=[protocol.decay] * len(which),
        schedule=schedule,
        windows=[(protocol.start / protocol.epochs, 1.0)],
    )
    return weights, swags, data, named(which, lost)


def tuned(job: Job) -> dict[str, Any]:
    """Settings by split on held-out rows, then 5 networks a split on all rows but the test's."""
    grid = list(itertools.product(RATES, DECAYS))
    walks, annealed = chosen(job, grid)
    data = job.data(0.0)
    which = list(itertools.product(range(job.splits), range(job.modes)))
    own = [walks[split] for split, _ in which]
    longest = max(job.protocol.budgets)
    _, windows, lost = job.train(
        "tuned-walk",
        data,
        which,
        epochs=longest,
        lr=[one["lr"] for one in own],
        decay=[one["decay"] for one in own],
        windows=WINDOWS,
    )
    swags = [windows[one["window"]][m] for m, one in enumerate(own)]
    weights = torch.zeros(len(which), swags[0].layout.size)
    lost_sgd = [False] * len(which)
    for epochs in sorted({one["epochs"] for one in annealed}):
        part = [m for m, (split, _) in enumerate(which) if annealed[split]["epochs"] == epochs]
        some = [which[m] for m in part]
        found, _, gone = job.train(
            f"tuned-sgd-{epochs}",
            data,
            some,
            epochs=epochs,
            lr=[annealed[split]["lr"] for split, _ in some],
            decay=[annealed[split]["decay"] for split, _ in some],
            schedule=lambda o, steps, n=epochs: ll.DecaySchedule(o, total=n * steps),
        )
        weights[part] = found
        for m, one in zip(part, gone, strict=True):
            lost_sgd[m] = one
    methods = judged(job, data, weights, swags, [one["scale"] for one in walks])
    return {
        "methods": methods,
        "walk": walks,
        "sgd": annealed,
        "lost": named(which, [a or b for a, b in zip(lost, lost_sgd, strict=True)]),
    }


def falling(job: Job) -> dict[str, Any]:
    """Each split's tuned SGD, with a walk at a lower rate in the last quarter of its budget."""
    record = json.loads((job.results / f"{job.name}-tuned.json").read_text())
    settings: list[dict[str, Any]] = record["sgd"]
    held = job.data(HELD)
    surfaces = job.surfaces(held, "validation")
    tried: list[list[dict[str, Any]]] = [[] for _ in settings]
    for factor in FACTORS:
        which = [(split, 0) for split in range(job.splits)]
        asked = [one | {"factor": factor} for one in settings]
        swags, lost = walk_down(job, "fall-grid", held, which, asked)
        for split, one in enumerate(asked):
            nll, scale = math.inf, 0.0
            if not lost[split]:
                nll, scale = validated(surfaces[split], swags[split])
            tried[split].append(one | {"scale": scale, "nll": nll})
    best = [min(found, key=lambda one: one["nll"]) for found in tried]
    which = list(itertools.product(range(job.splits), range(job.modes)))
    data = job.data(0.0)
    swags, lost = walk_down(job, "fall", data, which, [best[split] for split, _ in which])
    methods = judged(job, data, None, swags, [one["scale"] for one in best])
    # the same SGD: trained and judged in the tuned stage
    own = {name: record["methods"][name] for name in ("SGD", "Deep ensemble")}
    return {"methods": own | methods, "walk": best, "lost": named(which, lost)}


def walk_down(
    job: Job,
    run: str,
    data: Sequence[dict[str, Any]],
    which: Sequence[tuple[int, int]],
    settings: Sequence[dict[str, Any]],  # of each network
) -> tuple[list[ll.SWAG], list[bool]]:
    """Walks whose rate falls by `factor`: networks of one factor and budget together."""
    swags: dict[int, ll.SWAG] = {}
    lost = [False] * len(which)
    for factor, epochs in sorted({(one["factor"], one["epochs"]) for one in settings}):
        part = [
            m
            for m, one in enumerate(settings)
            if (one["factor"], one["epochs"]) == (factor, epochs)
        ]
        _, (found,), gone = job.train(
            f"{run}-{factor}-{epochs}",
            data,
            [which[m] for m in part],
            epochs=epochs,
            lr=[settings[m]["lr"] for m in part],
            decay=[settings[m]["decay"] for m in part],
            schedule=lambda o, steps, n=epochs, f=factor: ll.SWASchedule(
                o, total=n * steps, swa_lr=f, start=START
            ),
            windows=[(START, 1.0)],
        )
        swags |= dict(zip(part, found, strict=True))
        for m, one in zip(part, gone, strict=True):
            lost[m] = one
    return [swags[m] for m in range(len(which))], lost


#: shares of the longest budget in which iterates are averaged: the second halves of both budgets,
#: since a walk at a constant rate begins like a shorter one
WINDOWS = [(0.25, 0.5), (0.5, 1.0)]


def chosen(
    job: Job, grid: list[tuple[float, float]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """For each split the walk and the annealed run that predict its held-out rows best."""
    data = job.data(HELD)
    surfaces = job.surfaces(data, "validation")
    which = [(split, 0) for split in range(job.splits) for _ in grid]
    settings = grid * job.splits
    lr, decay = ([one[i] for one in settings] for i in (0, 1))
    walks: list[list[dict[str, Any]]] = [[] for _ in data]
    annealed: list[list[dict[str, Any]]] = [[] for _ in data]
    longest = max(job.protocol.budgets)
    _, windows, lost = job.train(
        "grid-walk", data, which, epochs=longest, lr=lr, decay=decay, windows=WINDOWS
    )
    for m, (split, _) in enumerate(which):
        for window, epochs in enumerate(job.protocol.budgets):
            one = {"lr": lr[m], "decay": decay[m], "epochs": epochs, "window": window}
            nll, scale = math.inf, 0.0
            if not lost[m]:
                nll, scale = validated(surfaces[split], windows[window][m])
            walks[split].append(one | {"scale": scale, "nll": nll})
    for epochs in job.protocol.budgets:
        weights, _, lost = job.train(
            f"grid-sgd-{epochs}",
            data,
            which,
            epochs=epochs,
            lr=lr,
            decay=decay,
            schedule=lambda o, steps, n=epochs: ll.DecaySchedule(o, total=n * steps),
        )
        for m, (split, _) in enumerate(which):
            one = {"lr": lr[m], "decay": decay[m], "epochs": epochs}
            nll = math.inf if lost[m] else float(surfaces[split](weights[m]))
            nll += math.log(float(data[split]["task"].target_std))
            annealed[split].append(one | {"nll": nll})
    best = [
        [min(found, key=lambda one: one["nll"]) for found in kind] for kind in (walks, annealed)
    ]
    return best[0], best[1]
