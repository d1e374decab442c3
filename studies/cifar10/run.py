"""The study of CIFAR-10: three runs and their comparison, as tables of the README.

Start `python studies/cifar10/run.py` in the project's root. The same command resumes a study that
was stopped. `--smoke` takes minutes and checks that all steps run; it is no result.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from lowland.records import Table

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from command import lowland  # noqa: E402
from readme import processor, rewrite  # noqa: E402

SMOKE = [
    *("train.epochs=4", "samples=3", "bn_rows=256", "compile=false"),
    *("data.args.train=1280", "data.args.validation=200", "data.args.test=400"),
]
COLUMNS = {  # key of the record -> heading, digits
    "accuracy": ("accuracy", 4),
    "nll": ("NLL", 4),
    "ece": ("ECE", 4),
    "brier": ("Brier", 4),
    "aurc": ("AURC", 4),
}
SHIFTED = {
    "accuracy_corrupted": ("accuracy", 4),
    "nll_corrupted": ("NLL", 4),
    "ece_corrupted": ("ECE", 4),
    "brier_corrupted": ("Brier", 4),
    "auroc_noise": ("AUROC, noise", 3),
    "fpr95_noise": ("FPR95, noise", 3),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10-study"))
    parser.add_argument("--seeds", type=int, default=3, help="runs")
    parser.add_argument(
        "--jobs", type=int, default=2, help="runs at the same time, one thread each"
    )
    parser.add_argument("--examples", type=int, default=500, help="corrupted test examples")
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything; no result")
    options = parser.parse_args()
    runs = [options.out / f"seed{seed}" for seed in range(options.seeds)]
    options.out.mkdir(parents=True, exist_ok=True)
    overrides = SMOKE if options.smoke else []

    def train(seed: int) -> int:
        arguments = ["run", str(HERE / "config.yaml"), f"seed={seed}", f"out={runs[seed]}"]
        return lowland(f"seed{seed}", [*arguments, *overrides], options.out)

    print(f"training; follow it in {options.out}/seed*.log", flush=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        failed = [seed for seed, code in enumerate(pool.map(train, range(options.seeds))) if code]
    if failed:
        print(f"runs of seeds {failed} failed: see {options.out}/seed*.log", file=sys.stderr)
        return 1
    place = options.out / "compare"
    arguments = ["compare", *map(str, runs), "--out", str(place)]
    if lowland("compare", [*arguments, "--examples", str(options.examples)], options.out):
        print(f"the comparison failed: see {options.out}/compare.log", file=sys.stderr)
        return 1
    text = tables(Table.load(place / "records" / "comparison.json"), options)
    print(text)
    if not options.smoke:
        rewrite(HERE / "README.md", text)
    return 0


def tables(comparison: Table, options: argparse.Namespace) -> str:
    """The comparison as Markdown."""
    today = datetime.datetime.now(datetime.UTC).date()
    rows = list(comparison.rows())
    lines = [
        f"{today}, {processor()}, {os.cpu_count()} cores, torch {torch.__version__}; "
        f"`python studies/cifar10/run.py --examples {options.examples}`.",
        "",
        "Test data, 8,000 images (mean ± standard error over "
        f"{options.seeds} runs; rows that join runs are one value):",
        "",
        table(rows, COLUMNS),
        "",
        f"The first {options.examples} of them corrupted, mean over kinds and strengths; and told "
        "from Gaussian noise by entropy:",
        "",
        table(rows, SHIFTED),
    ]
    return "\n".join(lines)


def table(rows: list[dict], columns: dict[str, tuple[str, int]]) -> str:
    columns = {name: column for name, column in columns.items() if name in rows[0]}
    return Table.from_rows(
        {"method": row["method"]}
        | {title: cell(row, name, digits) for name, (title, digits) in columns.items()}
        for row in rows
    ).to_markdown()


def cell(row: dict, name: str, digits: int) -> str:
    error = row.get(f"{name}_se", float("nan"))
    text = f"{row[name]:.{digits}f}"
    return text if error != error else f"{text} ± {error:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
