"""Large UCI regression: SGD, SWA, SWAG and PCA subspaces (Izmailov et al. 2019, tables 5 to 7).

`python studies/uci/large.py --sets elevators --splits 2` trains networks of 1000, 1000, 500 and 50
units, one split after the other on all cores. Each split leaves one file in `results/large`. The
same command resumes a stopped study, from these files and the current split's checkpoint in
`--out`.
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
from job import Window, relu_network
from metrics import predictive_metrics
from report import cell, row
from torch import nn

import lowland as ll
from lowland import samplers
from lowland.files import write_text
from lowland.zoo import uci

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from progress import ProgressLines  # noqa: E402
from readme import processor, rewrite  # noqa: E402

RANK, COLUMNS = 5, 20
#: one iterate per epoch is averaged from this epoch on, at this learning rate
START, AVERAGE_LR = 80, 1e-4
VI_EPOCHS = 30


@dataclass(frozen=True)
class Large:
    """The paper's settings for a data set, and temperatures of the sampler and of VI."""

    lr: float = 1e-3
    epochs: int = 200
    layers: tuple[int, ...] = (1000, 1000, 500, 50)
    temperature: float = 1e4  # published for elevators and protein only
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
#: normalised test log-likelihoods of the paper, and of OrthVGP, with which it compares
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


def train(
    net: nn.Module, data: dict[str, Any], large: Large, *, seed: int, checkpoint: Path, label: str
) -> ll.SWAG:
    """Trains the network; returns the moments of its SGD iterates."""
    batches = ll.Batches(data["train"], batch_size=large.batch_size, seed=seed)
    steps = len(batches)
    swag = ll.SWAG(ll.ParamLayout(net), rank=COLUMNS)

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        parameters = list(parameters)
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "lr": large.lr},
            # as in the paper
            {"params": [p for p in parameters if p.ndim <= 1], "lr": 2 * large.lr},
        ]
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=large.decay)

    def schedule(optimizer: torch.optim.Optimizer) -> Any:
        factor = AVERAGE_LR / large.lr
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 1.0 if step < START * steps else factor
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
        progress=ProgressLines(label),
    )
    return swag


def one_split(name: str, split: int, root: Path, out: Path) -> dict[str, Any]:
    """Metrics of a split by method, and their seconds."""
    large = SETS[name]
    data = uci(name=name, split=split, root=root, validation=0.0)
    net = relu_network(data["train"][0].shape[1], large.layers, seed=split)
    label = f"{name}, split {split + 1}"
    start = time.perf_counter()
    swag = train(
        net, data, large, seed=split, checkpoint=out / f"{name}-{split}.safetensors", label=label
    )
    seconds = {"training": time.perf_counter() - start}
    batches = ll.Batches(data["train"], batch_size=large.batch_size, seed=split)
    surface = ll.LossSurface(net, data["task"], batches)
    test = ll.LossSurface(net, data["task"], [data["test"]])
    posts: dict[str, Any] = {
        "SGD": swag.layout.flatten(net),
        "SWA": swag.mean,
        "SWAG": swag.posterior(),
    }
    sub = ll.Subspace.pca(swag, rank=RANK)
    # whitening would need passes over all examples, which minibatches avoid
    vi = samplers.Variational(
        draws=2, steps=VI_EPOCHS * len(batches), minibatch=True, whiten=False, evidence_draws=2
    )
    samplings: dict[str, Any] = {
        "PCA + ESS": {"temperature": large.temperature, "warmup": 20, "chains": 2, "samples": 15},
        "PCA + VI": {
            "temperature": large.vi_temperature, "sampler": vi, "chains": 1, "samples": 30,
        },
    }  # fmt: skip
    for title, options in samplings.items():
        start = time.perf_counter()
        with warnings.catch_warnings():
            # thirty draws of two chains disagree, as expected
            warnings.simplefilter("ignore")
            chain = ll.infer(
                sub, surface, **options, seed=split, progress=ProgressLines(f"{label}, {title}")
            )
        posts[title] = chain.posterior()
        seconds[title] = time.perf_counter() - start
    log_std = math.log(float(data["task"].target_std))
    methods = {}
    for title, post in posts.items():
        metrics = predictive_metrics(test, post)
        methods[title] = metrics | {"normalised": log_std - metrics["nll_gaussian"]}
    return {
        "set": name,
        "split": split,
        "date": str(datetime.datetime.now(datetime.UTC).date()),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "seconds": {key: round(value, 1) for key, value in seconds.items()},
        "protocol": asdict(large),
        "methods": methods,
    }


def tables(results: Path) -> str:
    """Means and standard errors over the finished splits."""
    records = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    sets = {name: [record for record in records if record["set"] == name] for name in SETS}
    sets = {name: splits for name, splits in sets.items() if splits}
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
    for name, splits in sets.items():
        cells = [
            f"{cell([split['methods'][m]['normalised'] for split in splits])}"
            + (f" ({PAPER[name][m]:.3f})" if m in PAPER[name] else "")
            for m in METHODS
        ]
        other = PAPER[name].get("OrthVGP")
        cells.append("-" if other is None else f"({other:.3f})")
        parts = ("training", "PCA + ESS", "PCA + VI")
        seconds = (statistics.fmean(split["seconds"][part] for split in splits) for part in parts)
        lines.append(row(name, str(len(splits)), *cells, *(f"{t:.0f}" for t in seconds)))
    lines += ["", "Difference to SGD, paired by split:", "", row("set", *METHODS[1:])]
    lines.append(row(*["---"] * len(METHODS)))
    for name, splits in sets.items():
        methods = [split["methods"] for split in splits]
        pairs = (
            [x[m]["normalised"] - x["SGD"]["normalised"] for x in methods] for m in METHODS[1:]
        )
        lines.append(row(name, *(cell(pair, sign="+") for pair in pairs)))
    lines += ["", "Rows inside of the 95% interval:", "", row("set", *METHODS)]
    lines.append(row(*["---"] * (len(METHODS) + 1)))
    for name, splits in sets.items():
        methods = [split["methods"] for split in splits]
        coverage = (statistics.fmean(x[m]["coverage"] for x in methods) for m in METHODS)
        lines.append(row(name, *(f"{c:.3f}" for c in coverage)))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument(
        "--splits", type=int, default=10, help="number of splits, from the first on"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/uci"))
    parser.add_argument("--out", type=Path, default=Path("runs/uci-large"), help="checkpoints")
    parser.add_argument("--table", action="store_true", help="rewrite the README's tables alone")
    options = parser.parse_args()
    results = HERE / "results" / "large"
    if not options.table:
        options.out.mkdir(parents=True, exist_ok=True)
        # split by split, so that a stopped study has splits of every set
        for split, name in itertools.product(range(options.splits), options.sets):
            path = results / f"{name}-{split}.json"
            if not path.is_file():
                record = one_split(name, split, options.data, options.out)
                write_text(path, json.dumps(record, indent=1) + "\n")
                rewrite(HERE / "README.md", tables(results), by="large.py")
    rewrite(HERE / "README.md", tables(results), by="large.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
