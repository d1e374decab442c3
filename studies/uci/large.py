"""Large UCI regression: SGD, SWA, SWAG and PCA subspaces (Izmailov et al. 2019, tables 5 to 7).

`python studies/uci/large.py --sets elevators --splits 2`: networks of 1000, 1000, 500 and 50 units,
one split after the other on every core there is; a file a split in `results/large`, which is what a
stopped run goes on from, with the checkpoint of the split under way in `--out`.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import math
import os
import statistics
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from figures import figures
from job import Window, layered
from report import cell, row
from torch import nn

import lowland as ll
from lowland import samplers
from lowland.files import write_text
from lowland.zoo import uci

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from lines import Lines  # noqa: E402
from readme import processor, rewrite  # noqa: E402

RANK, COLUMNS = 5, 20
WALK_LR, START = 1e-4, 80  # the walk's rate, and the epoch from which an iterate an epoch is kept
VI_EPOCHS = 30


@dataclass(frozen=True)
class Large:
    """What the paper did with a set; temperatures of the sampler and of VI."""

    lr: float = 1e-3
    epochs: int = 200
    layers: tuple[int, ...] = (1000, 1000, 500, 50)
    temperature: float = 1e4  # the paper tells those of elevators and protein alone
    vi_temperature: float = 1e4
    batch_size: int = 400
    decay: float = 4e-3


SETS = {
    "skillcraft": Large(5e-4, 100, (1000, 500, 50)),
    "elevators": Large(temperature=2e4, vi_temperature=1.5e4),
    "pol": Large(epochs=100),
    "protein": Large(),
    "keggdirected": Large(lr=1e-4),
    "keggundirected": Large(),
}
#: normalised test log-likelihoods of the paper, and those of OrthVGP that it compares with
PAPER = {
    "skillcraft": {"SGD": -1.147, "PCA + ESS": -1.159, "PCA + VI": -1.109, "SWAG": -1.181},
    "elevators": {
        "SGD": -0.538, "PCA + ESS": -0.397, "PCA + VI": -0.380, "SWAG": -0.395, "OrthVGP": -0.4479,
    },
    "pol": {
        "SGD": 1.290, "PCA + ESS": 1.737, "PCA + VI": 1.728, "SWAG": 1.680, "OrthVGP": 0.1586,
    },
    "protein": {
        "SGD": -0.861, "PCA + ESS": -0.834, "PCA + VI": -0.849, "SWAG": -0.861, "OrthVGP": -0.9138,
    },
    "keggdirected": {
        "SGD": 0.985, "PCA + ESS": 0.995, "PCA + VI": 0.988, "SWAG": 0.984, "OrthVGP": 1.0224,
    },
    "keggundirected": {
        "SGD": 0.700, "PCA + ESS": 0.707, "PCA + VI": 0.702, "SWAG": 0.707, "OrthVGP": 0.7007,
    },
}  # fmt: skip
METHODS = ("SGD", "SWA", "SWAG", "PCA + ESS", "PCA + VI")


def trained(
    net: nn.Module, data: dict[str, Any], large: Large, *, seed: int, checkpoint: Path, label: str
) -> ll.SWAG:
    """Trains the network, and gives the moments of its walk."""
    batches = ll.Batches(data["train"], batch_size=large.batch_size, seed=seed)
    steps = len(batches)
    swag = ll.SWAG(ll.ParamLayout(net), rank=COLUMNS)

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        every = list(parameters)
        groups = [
            {"params": [p for p in every if p.ndim > 1], "lr": large.lr},
            {"params": [p for p in every if p.ndim <= 1], "lr": 2 * large.lr},  # as the paper
        ]
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=large.decay)

    def schedule(made: torch.optim.Optimizer) -> Any:
        factor = WALK_LR / large.lr
        return torch.optim.lr_scheduler.LambdaLR(
            made, lambda step: 1.0 if step < START * steps else factor
        )

    window = Window(steps, START * steps, large.epochs * steps)
    ll.sgd(
        net,
        data["task"],
        batches,
        epochs=large.epochs,
        optimizer=optimizer,
        schedule=schedule,
        collectors=[ll.Collector(swag, when=window)],
        seed=seed,
        checkpoint=checkpoint,
        progress=Lines(label),
    )
    return swag


def one_split(name: str, split: int, root: Path, out: Path) -> dict[str, Any]:
    """Figures of a split by method, and what they cost."""
    large = SETS[name]
    data = uci(name=name, split=split, root=root, validation=0.0)
    net = layered(data["train"][0].shape[1], large.layers, seed=split)
    label = f"{name}, split {split + 1}"
    began = time.perf_counter()
    swag = trained(
        net, data, large, seed=split, checkpoint=out / f"{name}-{split}.safetensors", label=label
    )
    took = {"training": time.perf_counter() - began}
    batches = ll.Batches(data["train"], batch_size=large.batch_size, seed=split)
    surface = ll.LossSurface(net, data["task"], batches)
    test = ll.LossSurface(net, data["task"], [data["test"]])
    posts: dict[str, Any] = {
        "SGD": swag.layout.flatten(net),
        "SWA": swag.mean,
        "SWAG": swag.posterior(),
    }
    sub = ll.Subspace.pca(swag, rank=RANK)
    # whitening would take passes over all rows, which the minibatches are to spare
    vi = samplers.Variational(
        draws=2, steps=VI_EPOCHS * len(batches), minibatch=True, whiten=False, evidence_draws=2
    )
    asked: dict[str, Any] = {
        "PCA + ESS": {"temperature": large.temperature, "warmup": 20, "chains": 2, "samples": 15},
        "PCA + VI": {
            "temperature": large.vi_temperature, "sampler": vi, "chains": 1, "samples": 30,
        },
    }  # fmt: skip
    for title, options in asked.items():
        began = time.perf_counter()
        with warnings.catch_warnings():
            # that thirty draws of two chains disagree is no news
            warnings.simplefilter("ignore")
            chain = ll.infer(
                sub, surface, **options, seed=split, progress=Lines(f"{label}, {title}")
            )
        posts[title] = chain.posterior()
        took[title] = time.perf_counter() - began
    spread = math.log(float(data["task"].target_std))
    methods = {}
    for title, post in posts.items():
        found = figures(test, post)
        methods[title] = found | {"normalised": spread - found["nll_gaussian"]}
    return {
        "set": name,
        "split": split,
        "date": str(datetime.datetime.now(datetime.UTC).date()),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "seconds": {key: round(value, 1) for key, value in took.items()},
        "protocol": asdict(large),
        "methods": methods,
    }


def tables(results: Path) -> str:
    """Means and standard errors over the splits that there are."""
    records = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    sets = {name: [one for one in records if one["set"] == name] for name in SETS}
    sets = {name: found for name, found in sets.items() if found}
    if not sets:
        return "Not run yet."
    first = records[0]
    lines = [
        f"{first['date']}, {first['machine']}, torch {first['torch']}; "
        "`python studies/uci/large.py`.",
        "",
        "Normalised test log-likelihood (of standardised targets), mean ± standard error over the "
        "splits that were run; in brackets the paper's mean over 10:",
        "",
        row("set", "splits", *METHODS, "OrthVGP", "training s", "ESS s", "VI s"),
        row(*["---"] * (len(METHODS) + 6)),
    ]
    for name, found in sets.items():
        cells = [
            f"{cell([one['methods'][m]['normalised'] for one in found])}"
            + (f" ({PAPER[name][m]:.3f})" if m in PAPER[name] else "")
            for m in METHODS
        ]
        other = PAPER[name].get("OrthVGP")
        cells.append("-" if other is None else f"({other:.3f})")
        parts = ("training", "PCA + ESS", "PCA + VI")
        took = (statistics.fmean(one["seconds"][part] for one in found) for part in parts)
        lines.append(row(name, str(len(found)), *cells, *(f"{t:.0f}" for t in took)))
    lines += ["", "Difference to SGD, paired by split:", "", row("set", *METHODS[1:])]
    lines.append(row(*["---"] * len(METHODS)))
    for name, found in sets.items():
        own = [one["methods"] for one in found]
        pairs = ([x[m]["normalised"] - x["SGD"]["normalised"] for x in own] for m in METHODS[1:])
        lines.append(row(name, *(cell(pair, sign="+") for pair in pairs)))
    lines += ["", "Rows inside of the 95% interval:", "", row("set", *METHODS)]
    lines.append(row(*["---"] * (len(METHODS) + 1)))
    for name, found in sets.items():
        own = [one["methods"] for one in found]
        covered = (statistics.fmean(x[m]["coverage"] for x in own) for m in METHODS)
        lines.append(row(name, *(f"{c:.3f}" for c in covered)))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--splits", type=int, default=10, help="the first so many")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/uci"))
    parser.add_argument("--out", type=Path, default=Path("runs/uci-large"), help="checkpoints")
    parser.add_argument("--table", action="store_true", help="rewrite the README's tables alone")
    asked = parser.parse_args()
    results = HERE / "results" / "large"
    if not asked.table:
        asked.out.mkdir(parents=True, exist_ok=True)
        # split by split, so that a run that is stopped has some of every set
        for split, name in itertools.product(range(asked.splits), asked.sets):
            path = results / f"{name}-{split}.json"
            if not path.is_file():
                found = one_split(name, split, asked.data, asked.out)
                write_text(path, json.dumps(found, indent=1) + "\n")
                rewrite(HERE / "README.md", tables(results), by="large.py")
    rewrite(HERE / "README.md", tables(results), by="large.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
