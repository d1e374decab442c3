"""What this library recommends: settings and temperature chosen on held-out rows, five networks."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from figures import figures, keep_figures, mean_of, validated
from job import HELD, Job, layered, named
from subspaces import posteriors, subspace, tuned

import lowland as ll
from lowland import samplers
from lowland.files import write_text

#: shares of the budget that are averaged, of a walk at a constant rate and of one that falls
HALVES, LAST = ((0.25, 0.5), (0.5, 1.0)), ((0.75, 1.0),)
HIDDEN = 50  # units a layer
TEMPERATURES = (1.0, 100.0, 1e4)
PRIOR_SCALES = (0.5, 1.0, 2.0)
#: at a temperature of 1 the surface is so rough that a Gaussian goes on improving for minutes
VI = samplers.Variational(draws=32, steps=1000)


def budgets(job: Job) -> tuple[int, int]:
    """Epochs of a walk that is averaged in its first half, and of all."""
    return job.protocol.grid.budgets or job.protocol.budgets


def walks(
    job: Job,
    run: str,
    data: Sequence[dict[str, Any]],
    which: Sequence[tuple[int, int]],  # (split, seed) of each network
    settings: Sequence[dict[str, Any]],  # of each network
) -> tuple[list[torch.Tensor], list[list[ll.SWAG]], list[bool]]:
    """Last weights, moments of each window, and which diverged: networks of a kind together."""
    weights: dict[int, torch.Tensor] = {}
    swags: dict[int, list[ll.SWAG]] = {}
    lost = [False] * len(which)
    epochs = max(budgets(job))
    for depth, factor in itertools.product(job.protocol.grid.depths, job.protocol.grid.factors):
        part = [
            m for m, one in enumerate(settings) if (one["depth"], one["factor"]) == (depth, factor)
        ]
        if not part:
            continue

        def falling(o: torch.optim.Optimizer, steps: int, factor: float = factor) -> Any:
            return ll.SWASchedule(o, total=epochs * steps, swa_lr=factor, start=LAST[0][0])

        found, windows, gone = job.train(
            f"{run}-{depth}-{factor:g}",
            data,
            [which[m] for m in part],
            epochs=epochs,
            lr=[settings[m]["lr"] for m in part],
            decay=[settings[m]["decay"] for m in part],
            schedule=None if factor == 1 else falling,
            windows=HALVES if factor == 1 else LAST,
            clip=job.protocol.grid.clip,
            make=lambda features, split, seed, depth=depth: layered(
                features, [HIDDEN] * depth, seed=1000 * split + seed
            ),
        )
        for i, m in enumerate(part):
            weights[m], lost[m] = found[i], gone[i]
            swags[m] = [own[i] for own in windows]
    order = range(len(which))
    return [weights[m] for m in order], [swags[m] for m in order], lost


def surfaces(
    data: Sequence[dict[str, Any]], rows: str, settings: Sequence[dict[str, Any]]
) -> list[ll.LossSurface]:
    """Each split's loss over some of its rows, for the network of its setting."""
    features = data[0]["train"][0].shape[1]
    return [
        ll.LossSurface(
            layered(features, [HIDDEN] * one["depth"], seed=0), split["task"], [split[rows]]
        )
        for split, one in zip(data, settings, strict=True)
    ]


def chosen(job: Job) -> list[dict[str, Any]]:
    """For each split the walk whose SWAG predicts its held-out rows best, at its best scale; then
    the temperature and prior scale of PCA + ESS that do."""
    data = job.data(HELD)
    tried = job.protocol.grid
    grid = [
        {"depth": depth, "lr": lr, "decay": decay, "factor": factor}
        for depth, lr, decay, factor in itertools.product(
            tried.depths, tried.rates, tried.decays, tried.factors
        )
    ]
    which = [(split, 0) for split in range(job.splits) for _ in grid]
    settings = grid * job.splits
    _, swags, lost = walks(job, "best-grid", data, which, settings)
    held = {d: surfaces(data, "validation", [{"depth": d}] * job.splits) for d in tried.depths}
    options: list[list[tuple[dict[str, Any], ll.SWAG]]] = [[] for _ in data]
    for m, (split, _) in enumerate(which):
        for window, swag in enumerate(swags[m]):
            nll, scale = math.inf, 0.0
            if not lost[m]:
                nll, scale = validated(held[settings[m]["depth"]][split], swag)
            epochs = budgets(job)[window - len(swags[m])]  # the last window ends with the last
            found = {"window": window, "epochs": epochs, "scale": scale, "nll": nll}
            options[split].append((settings[m] | found, swag))
    best = [min(found, key=lambda one: one[0]["nll"]) for found in options]
    train = surfaces(data, "train", [setting for setting, _ in best])
    for split, (setting, swag) in enumerate(best):
        sub = subspace("pca", swag)
        setting |= {"temperature": 1.0, "prior_scale": 1.0}
        if sub is not None:
            temperature, prior_scale = tuned(
                sub,
                train[split],
                [data[split]["validation"]],
                job.protocol.sampling,
                temperatures=TEMPERATURES,
                prior_scales=PRIOR_SCALES,
            )
            setting |= {"temperature": temperature, "prior_scale": prior_scale}
        print(f"{job.name}: chosen for split {split + 1} of {job.splits}", flush=True)
    return [setting for setting, _ in best]


def recommended(job: Job) -> dict[str, Any]:
    """Five networks a split at its setting, and posteriors of all five together."""
    began = time.perf_counter()
    settings = chosen(job)
    job.took["choice"] = time.perf_counter() - began
    data = job.data(0.0)
    which = list(itertools.product(range(job.splits), range(job.modes)))
    own = [settings[split] for split, _ in which]
    weights, windows, lost = walks(job, "best", data, which, own)
    swags = [found[one["window"]] for found, one in zip(windows, own, strict=True)]
    methods: dict[str, dict[str, list[float]]] = {}
    trained = surfaces(data, "train", settings)
    tests = surfaces(data, "test", settings)
    began = time.perf_counter()
    for split, (surface, test, setting) in enumerate(zip(trained, tests, settings, strict=True)):
        mine = slice(split * job.modes, (split + 1) * job.modes)
        file = job.out / job.name / f"best-{split}.json"
        if not file.is_file():
            rows = of_split(job, surface, test, setting, weights[mine], swags[mine])
            write_text(file, json.dumps(rows))
        keep_figures(methods, json.loads(file.read_text()))
        print(f"{job.name}: split {split + 1} of {job.splits}", flush=True)
    job.took["predictions"] = time.perf_counter() - began
    return {"methods": methods, "walk": settings, "lost": named(which, lost)}


def of_split(
    job: Job,
    surface: ll.LossSurface,
    test: ll.LossSurface,
    setting: dict[str, Any],
    weights: Sequence[torch.Tensor],
    swags: Sequence[ll.SWAG],
) -> dict[str, dict[str, float]]:
    """Figures on a split's test rows by method."""
    means = [swag.mean for swag in swags]
    gaussians = [swag.posterior(scale=setting["scale"]) for swag in swags]
    asked = {name: setting[name] for name in ("temperature", "prior_scale")}
    asked["sampling"] = job.protocol.sampling
    ess = posteriors("pca", "ess", swags, surface, **asked)
    # of one network, for the time it takes
    vi = posteriors("pca", asked["sampling"].variational() or VI, swags[:1], surface, **asked)
    return {
        "SGD": mean_of(test, weights),
        "Deep ensemble": figures(test, ll.Ensemble(weights)),
        "SWA": mean_of(test, means),
        "SWA ensemble": figures(test, ll.Ensemble(means)),
        "SWAG": mean_of(test, gaussians),
        "MultiSWAG": figures(test, ll.Mixture(gaussians)),
        "PCA + VI": mean_of(test, vi),
        "PCA + ESS": mean_of(test, ess),
        "PCA + ESS, five networks": figures(test, ll.Mixture(ess)),
    }
