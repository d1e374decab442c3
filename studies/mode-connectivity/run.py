"""The study of mode connectivity: two networks, a Bezier curve and a chain between them, planes.

`python studies/mode-connectivity/run.py` from the project's root. Stop it at any moment: the same
command goes on. `--smoke` is a run of minutes that shows that everything works, and no result.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from lowland.records import SurfaceResult, Table

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from command import lowland  # noqa: E402
from readme import processor, rewrite  # noqa: E402

SMOKE = [
    *("train.epochs=2", "bn_rows=256", "compile=false"),
    *("data.args.train=1280", "data.args.validation=200", "data.args.test=400"),
]
COLUMNS = {  # of the record -> heading, format
    "loss_ends": ("train loss at the ends", "{:.4f}"),
    "loss_max": ("highest on the way", "{:.4f}"),
    "barrier": ("above the ends", "{:.4f}"),
    "error_max": ("highest train error", "{:.4f}"),
    "test_loss_max": ("highest test loss", "{:.4f}"),
    "test_error_ends": ("test error at the ends", "{:.4f}"),
    "test_error_max": ("highest test error", "{:.4f}"),
    "length": ("length", "{:.1f}"),
}
KINDS = ("bezier", "chain")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/mode-connectivity"))
    parser.add_argument(
        "--runs",
        type=Path,
        nargs=3,
        help="three finished runs to take instead of training: those of studies/cifar10 will do",
    )
    parser.add_argument("--epochs", type=int, default=20, help="of fitting a curve")
    parser.add_argument("--points", type=int, default=61, help="along a curve")
    parser.add_argument(
        "--examples", type=int, default=10_000, help="training examples along curves"
    )
    parser.add_argument(
        "--plane-examples", type=int, default=2_000, help="training examples on planes"
    )
    parser.add_argument("--resolution", type=int, default=41, help="of a plane's side")
    parser.add_argument("--jobs", type=int, default=2, help="side by side, on a thread each")
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything; no result")
    asked = parser.parse_args()
    if asked.smoke:
        asked.epochs, asked.points, asked.examples = 1, 5, 500
        asked.plane_examples, asked.resolution = 200, 9
    asked.out.mkdir(parents=True, exist_ok=True)
    runs = asked.runs or [asked.out / f"seed{seed}" for seed in range(3)]
    stages = [
        [] if asked.runs else [(f"seed{i}", train(i, run, asked)) for i, run in enumerate(runs)],
        [(kind, curve(kind, runs, asked)) for kind in KINDS],
        [(name, plane(name, runs, asked)) for name in (*KINDS, "optima")],
    ]
    with ThreadPoolExecutor(asked.jobs) as pool:
        for stage in stages:
            names = ", ".join(name for name, _ in stage)
            print(f"{names}; follow it in {asked.out}/*.log", flush=True)
            codes = list(pool.map(lambda job: lowland(job[0], job[1], asked.out), stage))
            if any(codes):
                print(f"failed: see {asked.out}/*.log", file=sys.stderr)
                return 1
    text = results(asked)
    print(text)
    if not asked.smoke:
        rewrite(HERE / "README.md", text)
    return 0


def train(seed: int, run: Path, asked: argparse.Namespace) -> list[str]:
    more = SMOKE if asked.smoke else []
    return ["run", str(HERE / "config.yaml"), f"seed={seed}", f"out={run}", *more]


def curve(kind: str, runs: list[Path], asked: argparse.Namespace) -> list[str]:
    return [
        *("connect", str(runs[0]), str(runs[1]), "--kind", kind),
        *("--epochs", str(asked.epochs), "--points", str(asked.points)),
        *("--examples", str(asked.examples), "--out", str(asked.out / kind)),
    ]


def plane(name: str, runs: list[Path], asked: argparse.Namespace) -> list[str]:
    of = map(str, runs) if name == "optima" else [str(asked.out / name)]
    return [
        *(
            "scan",
            *of,
            "--resolution",
            str(asked.resolution),
            "--examples",
            str(asked.plane_examples),
        ),
        *("--refine", "0.02", "--out", str(asked.out / f"plane-{name}")),
    ]


def results(asked: argparse.Namespace) -> str:
    """The curves as a table, and what the planes cost."""
    rows: dict[str, dict] = {}
    for kind in KINDS:
        for row in Table.load(asked.out / kind / "records" / "curves.json").rows():
            rows.setdefault(row["method"], row)
    today = datetime.datetime.now(datetime.UTC).date()
    names = [name for name in COLUMNS if name in next(iter(rows.values()))]
    lines = [
        f"{today}, {processor()}, {os.cpu_count()} cores, torch {torch.__version__}; "
        f"`python studies/mode-connectivity/run.py --epochs {asked.epochs}`.",
        "",
        f"Along the curves, {asked.points} points, {asked.examples:,} training images and the "
        "test images at each point, BatchNorm statistics recomputed:",
        "",
        "| curve | " + " | ".join(COLUMNS[name][0] for name in names) + " |",
        "| " + " | ".join(["---"] * (len(names) + 1)) + " |",
    ]
    for title, row in rows.items():
        cells = [COLUMNS[name][1].format(row[name]) for name in names]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    line = rows["Line"]["barrier"]
    for title, row in rows.items():
        if title != "Line":
            share = row["barrier"] / line
            lines += ["", f"{title}: {share:.1%} of the line's barrier."]
    lines += ["", f"The planes, {asked.plane_examples:,} training images:", ""]
    for name in (*KINDS, "optima"):
        found = SurfaceResult.load(next((asked.out / f"plane-{name}" / "records").glob("*.npz")))
        grid = len(found.x) * len(found.y)
        lines.append(f"- {name}: {found.evaluations} of {grid} points evaluated.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
