"""Small UCI regression: SGD, SWA, SWAG, deep ensembles and MultiSWAG over the 20 standard splits.

`python studies/uci/run.py` trains every set's 20 x 5 networks side by side, in three stages:

- papers: the protocol of Izmailov et al. 2019 (learning rate, decay, batch, epochs, start of the
  walk), SWAG at scale 1;
- tuned: for each split the rate, decay, budget and scale with the lowest NLL on a fifth of the
  rows outside of its test split, then trained on all of those rows;
- falling: the tuned SGD, whose rate falls to a lower one at which the walk goes on; that rate and
  the scale are chosen as before. Added once the tuned stage of boston, concrete and energy was
  seen, where walks at the rate that SGD starts with lost to SGD on energy.

The grids stand below, fixed before the first run; no test row is looked at before the last
predictions. Each set and stage leaves one file in `results/` and is skipped when that is there; a
run that was stopped goes on where it was. The tables of the README are made from these files.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from recommended import recommended
from report import tables
from subspaces import METHODS, joined, keep_figures, mean_of, posteriors, temperature_of

import lowland as ll
from lowland.files import write_text
from lowland.zoo import uci, uci_net

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from lines import Lines  # noqa: E402
from readme import processor, rewrite  # noqa: E402

SPLITS, MODES, RANK, SAMPLES = 20, 5, 20, 30
HELD = 0.2  # of the rows outside of the test split: what settings are chosen on
RATES = (3e-3, 1e-2, 3e-2)
DECAYS = (1e-4, 1e-3, 1e-2, 3e-2)
SCALES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
FACTORS = (0.03, 0.1, 0.3)  # of the first rate: what it falls to
START = 0.75  # of the budget: where a walk at a fallen rate begins to be averaged


@dataclass(frozen=True)
class Protocol:
    """What the papers did with a set, and how long the tuned stage may train."""

    lr: float
    decay: float
    batch_size: int
    epochs: int
    start: int  # the epoch from which an iterate an epoch is averaged, at `walk_lr`
    budgets: tuple[int, int]  # epochs of the tuned stage; the second is twice the first
    walk_lr: float = 1e-3


SETS = {
    "boston": Protocol(1e-3, 1e-1, 30, 300, 200, (200, 400)),
    "concrete": Protocol(1e-3, 1e-2, 100, 1000, 500, (500, 1000)),
    "energy": Protocol(1e-3, 1e-1, 100, 1000, 500, (500, 1000)),
    "yacht": Protocol(1e-3, 1e-3, 30, 1000, 500, (800, 1600)),
    "naval": Protocol(5e-4, 1e-4, 100, 1000, 500, (100, 200)),
}


@dataclass(frozen=True)
class Job:
    """One set: its splits, and where its runs keep their checkpoints."""

    name: str
    protocol: Protocol
    root: Path
    out: Path
    results: Path
    splits: int = SPLITS
    modes: int = MODES
    took: dict[str, float] = field(default_factory=dict)  # seconds by run

    def data(self, validation: float) -> list[dict[str, Any]]:
        """Every split, a part of its rows held out."""
        return [
            uci(name=self.name, split=split, root=self.root, validation=validation)
            for split in range(self.splits)
        ]

    def surfaces(self, data: Sequence[dict[str, Any]], rows: str) -> list[ll.LossSurface]:
        """Each split's loss over its held-out or test rows."""
        net = uci_net(inputs=data[0]["train"][0].shape[1])
        return [ll.LossSurface(net, one["task"], [one[rows]]) for one in data]

    def curve(self, one: dict[str, Any], w0: torch.Tensor, w1: torch.Tensor) -> ll.Bezier:
        """A Bezier curve between two networks of a split, by the papers' settings."""
        protocol = self.protocol
        return joined(
            w0,
            w1,
            uci_net(inputs=one["train"][0].shape[1]),
            one["task"],
            one["train"],
            batch_size=protocol.batch_size,
            epochs=protocol.epochs,
            lr=protocol.lr,
            decay=protocol.decay,
        )

    def train(
        self,
        run: str,
        data: Sequence[dict[str, Any]],
        which: Sequence[tuple[int, int]],  # (split, seed) of each network
        *,
        epochs: int,
        lr: Sequence[float],
        decay: Sequence[float],
        schedule: Callable[[torch.optim.Optimizer, int], Any] | None = None,
        windows: Sequence[tuple[float, float]] = (),
        make: Callable[[int, int, int], torch.nn.Module] | None = None,
    ) -> tuple[torch.Tensor, list[list[ll.SWAG]], list[bool]]:
        """Weights (M, P), SWAG moments [window][network], and which networks diverged."""
        features = data[0]["train"][0].shape[1]
        members = ll.Members((make or network)(features, split, seed) for split, seed in which)
        batches = [
            ll.Batches(
                data[split]["train"],
                batch_size=self.protocol.batch_size,
                seed=1000 * split + seed,
            )
            for split, seed in which
        ]
        steps = len(batches[0])
        layout = ll.ParamLayout(members)
        moments = [ll.SWAG(layout, rank=RANK) for _ in windows]
        collectors = [
            ll.Collector(swag, when=Window(steps, *(share * epochs * steps for share in window)))
            for swag, window in zip(moments, windows, strict=True)
        ]
        logs = ll.sgd_members(
            members,
            data[0]["task"],  # in standardised units the splits' tasks are one
            batches,
            epochs=epochs,
            optimizer=lambda p: ll.MemberSGD(p, lr=lr, weight_decay=decay),
            schedule=None if schedule is None else lambda o: schedule(o, steps),
            collectors=collectors,
            diverged="drop",
            checkpoint=self.out / self.name / f"{run}.safetensors",
            progress=Lines(f"{self.name} {run}, {len(which)} networks"),
        )
        self.took[run] = sum(log.seconds for log in logs)
        lost = [not math.isfinite(float(log.columns["loss"][-1])) for log in logs]
        return members.weights.detach(), [members.split(swag) for swag in moments], lost


@dataclass(frozen=True)
class Window:
    """An iterate an epoch, from one step to another, both included."""

    interval: int
    first: float
    last: float

    def picks(self, step: int) -> bool:
        return step % self.interval == 0 and self.first <= step <= self.last


def network(features: int, split: int, seed: int) -> torch.nn.Module:
    torch.manual_seed(1000 * split + seed)
    return uci_net(inputs=features)


# -- the stages ------------------------------------------------------------------------------------


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
        for method, posts in rows.items():
            found = [figures(surface, post) for post in posts]
            for name in found[0]:
                value = sum(one[name] for one in found) / len(found)
                methods.setdefault(method, {}).setdefault(name, []).append(value)
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


def papers_subspaces(job: Job) -> dict[str, Any]:
    """Posteriors in subspaces of the networks of the papers' stage, at the paper's temperatures."""
    weights, swags, data, lost = trained_as_papers(job)
    methods: dict[str, dict[str, list[float]]] = {}
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
            # of one network but for the sampler of the paper, for the time that they take
            curve, nets = None, own if title == "PCA + ESS" else own[:1]
            if kind == "curve":
                curve = job.curve(data[split], weights[mine[0]], weights[mine[1]])
            posts = posteriors(kind, sampler, nets, surface, temperature, curve=curve)
            rows[title] = mean_of(figures, test, posts)
            if title == "PCA + ESS":
                rows["PCA + ESS, five networks"] = figures(test, ll.Mixture(posts))
        write_text(file, json.dumps(rows))
        keep_figures(methods, rows)
        seconds = time.perf_counter() - began
        print(f"{job.name}: split {split + 1} of {job.splits}, {seconds:.0f} s", flush=True)
    job.took["subspaces"] = time.perf_counter() - began
    return {"methods": methods, "lost": lost}


def named(which: Sequence[tuple[int, int]], lost: Sequence[bool]) -> list[list[int]]:
    """(split, seed) of the networks that diverged."""
    return [list(one) for one, gone in zip(which, lost, strict=True) if gone]


STAGES = {
    "papers": papers,
    "tuned": tuned,
    "falling": falling,
    "papers-subspaces": papers_subspaces,
    "recommended": lambda job: recommended(job, figures),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/uci"))
    parser.add_argument("--out", type=Path, default=Path("runs/uci"), help="checkpoints")
    parser.add_argument("--table", action="store_true", help="rewrite the README's tables alone")
    parser.add_argument("--smoke", action="store_true", help="short, for a look; not a result")
    options = parser.parse_args()
    results = options.out / "smoke" if options.smoke else HERE / "results"
    if options.table:
        rewrite(HERE / "README.md", tables(results))
        return 0
    torch.set_num_threads(1)  # fastest for such networks
    # page faults take a fifth of a step of 100 networks in batches of 100, two fifths with 240
    ll.keep_freed_memory()
    for name, stage in itertools.product(options.sets, options.stages):
        path = results / f"{name}-{stage}.json"
        if path.is_file():
            continue
        job = Job(name, SETS[name], options.data, options.out, results)
        if options.smoke:
            job = smoke(job)
        began = time.time()
        found = STAGES[stage](job)
        record = {
            "set": name,
            "stage": stage,
            "date": str(datetime.datetime.now(datetime.UTC).date()),
            "machine": f"{processor()}, {os.cpu_count()} cores, one thread",
            "torch": torch.__version__,
            "command": "python studies/uci/run.py",
            "seconds": {key: round(value, 1) for key, value in job.took.items()},
            "protocol": asdict(job.protocol),
            "splits": job.splits,
            "modes": job.modes,
            "samples": SAMPLES,
            **found,
        }
        write_text(path, json.dumps(record, indent=1) + "\n")
        print(f"{name} {stage}: {time.time() - began:.0f} s, {path}", flush=True)
        if not options.smoke:
            rewrite(HERE / "README.md", tables(results))
    return 0


def smoke(job: Job) -> Job:
    """A thirtieth of the epochs on two splits: shows that everything runs."""
    old = job.protocol
    epochs = max(old.epochs // 30, 9)
    start = epochs * old.start // old.epochs
    short = replace(old, epochs=epochs, start=start, budgets=(6, 12))
    return replace(job, protocol=short, out=job.out / "smoke", splits=2, modes=2)


if __name__ == "__main__":
    sys.exit(main())
