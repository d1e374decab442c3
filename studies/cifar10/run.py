"""The study of CIFAR-10: three runs, compared; the tables of the README are written from them.

`python studies/cifar10/run.py` from the project's root. Stop it at any moment: the same command
goes on. `--smoke` is a run of minutes that shows that everything works, and no result.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from lowland.records import Table

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from readme import processor, rewrite  # noqa: E402

SMOKE = [
    *("train.epochs=4", "samples=3", "bn_rows=256", "compile=false"),
    *("data.args.train=1280", "data.args.validation=200", "data.args.test=400"),
]
COLUMNS = {  # of the record -> heading, digits
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
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, on a thread each")
    parser.add_argument("--examples", type=int, default=500, help="test rows that are corrupted")
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything; no result")
    asked = parser.parse_args()
    runs = [asked.out / f"seed{seed}" for seed in range(asked.seeds)]
    asked.out.mkdir(parents=True, exist_ok=True)
    more = SMOKE if asked.smoke else []

    def train(seed: int) -> int:
        with open(asked.out / f"seed{seed}.log", "a") as log:
            config = str(HERE / "config.yaml")
            return lowland("run", config, f"seed={seed}", f"out={runs[seed]}", *more, log=log)

    print(f"training; follow it in {asked.out}/seed*.log", flush=True)
    with ThreadPoolExecutor(asked.jobs) as pool:
        failed = [seed for seed, code in enumerate(pool.map(train, range(asked.seeds))) if code]
    if failed:
        print(f"runs of seeds {failed} failed: see {asked.out}/seed*.log", file=sys.stderr)
        return 1
    place = asked.out / "compare"
    options = ["--out", str(place), "--examples", str(asked.examples)]
    if lowland("compare", *map(str, runs), *options):
        return 1
    text = tables(Table.load(place / "records" / "comparison.json"), asked)
    print(text)
    if not asked.smoke:
        rewrite(HERE / "README.md", text)
    return 0


def lowland(*arguments: str, log: object = None) -> int:
    """Runs the command line on one thread."""
    return subprocess.run(
        [sys.executable, "-m", "lowland", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=log,  # type: ignore[arg-type]
        stderr=subprocess.STDOUT if log else None,
        check=False,
    ).returncode


def tables(found: Table, asked: argparse.Namespace) -> str:
    """The rows as Markdown."""
    today = datetime.datetime.now(datetime.UTC).date()
    rows = list(found.rows())
    lines = [
        f"{today}, {processor()}, {os.cpu_count()} cores, torch {torch.__version__}; "
        f"`python studies/cifar10/run.py --examples {asked.examples}`.",
        "",
        "Test data, 8,000 images (mean ± standard error over "
        f"{asked.seeds} runs; rows that join runs are one value):",
        "",
        *table(rows, COLUMNS),
        "",
        f"The first {asked.examples} of them corrupted, mean over kinds and strengths; and told "
        "from Gaussian noise by entropy:",
        "",
        *table(rows, SHIFTED),
    ]
    return "\n".join(lines)


def table(rows: list[dict], columns: dict[str, tuple[str, int]]) -> list[str]:
    names = [name for name in columns if name in rows[0]]
    lines = [
        "| " + " | ".join(["method", *(columns[name][0] for name in names)]) + " |",
        "| " + " | ".join(["---"] * (len(names) + 1)) + " |",
    ]
    for row in rows:
        cells = [row["method"], *(cell(row, name, columns[name][1]) for name in names)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def cell(row: dict, name: str, digits: int) -> str:
    error = row.get(f"{name}_se", float("nan"))
    text = f"{row[name]:.{digits}f}"
    return text if error != error else f"{text} ± {error:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
