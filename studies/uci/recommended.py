"""What this library recommends: settings and temperature chosen on held-out rows, five networks."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from subspaces import keep_figures, mean_of, posteriors, subspace, tuned_temperature
from torch import nn

import lowland as ll
from lowland.core import GaussianHead
from lowland.files import write_text

DEPTHS = (1, 2)
RATES = (3e-3, 1e-2)
DECAYS = (1e-4, 1e-3, 1e-2)
TEMPERATURES = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
FACTOR, START = 0.1, 0.75  # what the rate falls to, and when the walk is averaged
HELD = 0.2


def network(features: int, depth: int, seed: int, *, hidden: int = 50) -> nn.Module:
    """Hidden layers of 50 units, mean and raw variance, and one learned noise variance."""
    torch.manual_seed(seed)
    sizes = [features, *[hidden] * depth]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return GaussianHead(nn.Sequential(*layers, nn.Linear(hidden, 2)))


def walks(
    job: Any,
    run: str,
    data: Sequence[dict[str, Any]],
    which: Sequence[tuple[int, int]],  # (split, seed) of each network
    settings: Sequence[dict[str, Any]],  # of each network
) -> tuple[list[torch.Tensor], list[ll.SWAG], list[bool]]:
    """Last weights, moments of the last quarter, and which diverged: a depth at a time."""
    weights: dict[int, torch.Tensor] = {}
    swags: dict[int, ll.SWAG] = {}
    lost = [False] * len(which)
    epochs = max(job.protocol.budgets)
    for depth in DEPTHS:
        part = [m for m, one in enumerate(settings) if one["depth"] == depth]
        if not part:
            continue
        found, (own,), gone = job.train(
            f"{run}-{depth}",
            data,
            [which[m] for m in part],
            epochs=epochs,
            lr=[settings[m]["lr"] for m in part],
            decay=[settings[m]["decay"] for m in part],
            schedule=lambda o, steps: ll.SWASchedule(
                o, total=epochs * steps, swa_lr=FACTOR, start=START
            ),
            windows=[(START, 1.0)],
            make=lambda features, split, seed, depth=depth: network(
                features, depth, 1000 * split + seed
            ),
        )
        for i, m in enumerate(part):
            weights[m], swags[m], lost[m] = found[i], own[i], gone[i]
    order = range(len(which))
    return [weights[m] for m in order], [swags[m] for m in order], lost


def surfaces(
    data: Sequence[dict[str, Any]], rows: str, settings: Sequence[dict[str, Any]]
) -> list[ll.LossSurface]:
    """Each split's loss over some of its rows, for the network of its setting."""
    features = data[0]["train"][0].shape[1]
    return [
        ll.LossSurface(network(features, one["depth"], 0), split["task"], [split[rows]])
        for split, one in zip(data, settings, strict=True)
    ]


def chosen(job: Any) -> list[dict[str, Any]]:
    """For each split the setting whose SWA predicts its held-out rows best, and a temperature."""
    data = job.data(HELD)
    grid = [
        {"depth": depth, "lr": lr, "decay": decay}
        for depth, lr, decay in itertools.product(DEPTHS, RATES, DECAYS)
    ]
    which = [(split, 0) for split in range(job.splits) for _ in grid]
    settings = grid * job.splits
    _, swags, lost = walks(job, "best-grid", data, which, settings)
    tried: list[list[tuple[float, dict[str, Any], ll.SWAG]]] = [[] for _ in data]
    for depth in DEPTHS:
        held = surfaces(data, "validation", [{"depth": depth}] * job.splits)
        for m, (split, _) in enumerate(which):
            if settings[m]["depth"] != depth:
                continue
            nll = math.inf if lost[m] else float(held[split](swags[m].mean))
            nll += math.log(float(data[split]["task"].target_std))
            tried[split].append((nll, settings[m], swags[m]))
    found = []
    for split, options in enumerate(tried):
        nll, setting, swag = min(options, key=lambda one: one[0])
        (surface,) = surfaces(data[split : split + 1], "train", [setting])
        sub = subspace("pca", swag)
        temperature = 1.0
        if sub is not None:
            rows = [data[split]["validation"]]
            temperature, _ = tuned_temperature(sub, surface, rows, "ess", TEMPERATURES)
        found.append(setting | {"temperature": temperature, "nll": nll})
        print(f"{job.name}: chosen for split {split + 1} of {job.splits}", flush=True)
    return found


def recommended(
    job: Any, figures: Callable[[ll.LossSurface, Any], dict[str, float]]
) -> dict[str, Any]:
    """Five networks a split at its setting, and posteriors of all five together."""
    began = time.perf_counter()
    settings = chosen(job)
    job.took["choice"] = time.perf_counter() - began
    data = job.data(0.0)
    which = list(itertools.product(range(job.splits), range(job.modes)))
    weights, swags, lost = walks(job, "best", data, which, [settings[s] for s, _ in which])
    methods: dict[str, dict[str, list[float]]] = {}
    trained = surfaces(data, "train", settings)
    tests = surfaces(data, "test", settings)
    began = time.perf_counter()
    for split, (surface, test) in enumerate(zip(trained, tests, strict=True)):
        mine = range(split * job.modes, (split + 1) * job.modes)
        own = [swags[m] for m in mine]
        file = job.out / job.name / f"best-{split}.json"
        if file.is_file():
            keep_figures(methods, json.loads(file.read_text()))
            continue
        temperature = settings[split]["temperature"]
        posts = {
            sampler: posteriors("pca", sampler, own, surface, temperature)
            for sampler in ("ess", "vi")
        }
        last = [weights[m] for m in mine]
        rows = {
            "SGD": mean_of(figures, test, last),
            "Deep ensemble": figures(test, ll.Ensemble(last)),
            "SWA": mean_of(figures, test, [swag.mean for swag in own]),
            "SWA ensemble": figures(test, ll.Ensemble([swag.mean for swag in own])),
            "PCA + VI": mean_of(figures, test, posts["vi"]),
            "PCA + ESS": mean_of(figures, test, posts["ess"]),
            "PCA + ESS, five networks": figures(test, ll.Mixture(posts["ess"])),
        }
        write_text(file, json.dumps(rows))
        keep_figures(methods, rows)
        print(f"{job.name}: split {split + 1} of {job.splits}", flush=True)
    job.took["predictions"] = time.perf_counter() - began
    gone = [list(one) for one, out in zip(which, lost, strict=True) if out]
    return {"methods": methods, "walk": settings, "lost": gone}
