"""The study of simplexes on CIFAR-10: one mode, two modes, and averages over three.

Start `python studies/simplex/run.py` in the project's root. The same command resumes a study that
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
from volumes import error_sentence, growth_table, point_metrics

from lowland.cli.simplex_folder import COMPLEX
from lowland.records import GrowthResult, SurfaceResult, Table

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from command import lowland  # noqa: E402
from readme import processor, rewrite  # noqa: E402

VERTICES, CONNECTORS = 5, 2
POINTS = 200  # random points of the volume between two modes
SMOKE = [
    *("train.epochs=2", "bn_rows=256", "compile=false", "samples=3", "fge.cycle=1"),
    *("data.args.train=1280", "data.args.validation=200", "data.args.test=400"),
    *("simplex.epochs=1", "simplex.points=3", "simplex.examples=256", "average.every=0.25"),
]
COMPARED = {
    "accuracy": "{:.4f}",
    "nll": "{:.4f}",
    "ece": "{:.4f}",
    "nll_tempered": "{:.4f}",
    "samples": "{:.0f}",
    "epochs": "{:.0f}",
    "train_seconds": "{:.0f}",
    "predict_seconds": "{:.1f}",
}
HEADINGS = {
    "nll": "NLL",
    "ece": "ECE",
    "nll_tempered": "NLL at T",
    "samples": "networks",
    "epochs": "epochs' passes",
    "train_seconds": "train s",
    "predict_seconds": "predict s",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/simplex-study"))
    parser.add_argument(
        "--jobs", type=int, default=2, help="jobs at the same time, one thread each"
    )
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything; no result")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    run = options.out / "run"
    one_mode, two_modes = run / "simplex", run / "joined"
    evaluation = (
        ["--points", "3", "--examples", "256"]
        if options.smoke
        else ["--points", "20", "--examples", "5000"]
    )
    scan_options = (
        ["--resolution", "5"] if options.smoke else ["--resolution", "31", "--examples", "2000"]
    )
    epochs = ("1", "1") if options.smoke else ("2", "8")
    stages = [
        {
            "run": [
                "run",
                str(HERE / "cifar10.yaml"),
                f"out={run}",
                *(SMOKE if options.smoke else []),
            ]
        },
        {
            "one": [
                "simplex",
                str(run),
                "--vertices",
                str(VERTICES),
                "--epochs",
                epochs[0],
                *evaluation,
            ],
            "two": [
                *("simplex", str(run), "--connectors", str(CONNECTORS), "--epochs", epochs[1]),
                *("--rise", "0.2", "--out", str(two_modes), *evaluation),
            ],
        },
        {
            "plane-one": ["scan", str(one_mode), *scan_options],
            "plane-two": ["scan", str(two_modes), *scan_options],
        },
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        for stage in stages:
            print(f"{', '.join(stage)}; follow it in {options.out}/*.log", flush=True)
            if any(pool.map(lambda job: lowland(job[0], job[1], options.out), stage.items())):
                print(f"failed: see {options.out}/*.log", file=sys.stderr)
                return 1
    text = results(
        run, one_mode, two_modes, point_metrics(two_modes, 5 if options.smoke else POINTS)
    )
    print(text)
    if not options.smoke:
        rewrite(HERE / "README.md", text)
    return 0


def results(run: Path, one_mode: Path, two_modes: Path, points: Table) -> str:
    """Tables for the README."""
    today = datetime.datetime.now(datetime.UTC).date()
    lines = [
        f"{today}, {processor()}, {os.cpu_count()} cores, torch {torch.__version__}; "
        "`python studies/simplex/run.py`.",
        "",
        "From one mode, a simplex vertex by vertex:",
        "",
        *growth_table(GrowthResult.load(one_mode / "records" / "growth-simplex-0.json")),
        "",
        "Between two modes, a volume connector by connector:",
        "",
        *growth_table(GrowthResult.load(two_modes / "records" / f"growth-{COMPLEX}.json")),
        "",
    ]
    lines += [
        error_sentence(points),
        "",
        "Averages, and what each cost (passes: forward and backward over 50,000 images):",
        "",
    ]
    table = Table.load(run / "records" / "comparison.json")
    cells = (
        {HEADINGS.get(k, k): form.format(row[k]) for k, form in COMPARED.items() if k in row}
        for row in table.rows()
    )
    compared = Table({"method": table.method} | Table.from_rows(cells).columns)
    lines.append(compared.to_markdown())
    lines += ["", "Planes through the first three vertices, 2,000 training images:", ""]
    for name, path in (("one mode", one_mode), ("two modes", two_modes)):
        surface = SurfaceResult.load(path / "scan" / "v0-v1-v2" / "records" / "surface.npz")
        grid = len(surface.x) * len(surface.y)
        lines.append(f"- {name}: {surface.evaluations} of {grid} points evaluated.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
