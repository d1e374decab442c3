"""The study of mode connectivity: two networks, a Bezier curve and a chain between them, planes.

Start `python studies/mode-connectivity/run.py` in the project's root. The same command resumes a
study that was stopped. `--smoke` takes minutes and checks that all steps run; it is no result.
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
COLUMNS = {  # key of the record -> heading, format
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
        help="three finished runs instead of new ones, for example those of studies/cifar10",
    )
    parser.add_argument("--epochs", type=int, default=20, help="epochs of a curve's training")
    parser.add_argument("--points", type=int, default=61, help="points along a curve")
    parser.add_argument(
        "--examples", type=int, default=10_000, help="training examples along curves"
    )
    parser.add_argument(
        "--plane-examples", type=int, default=2_000, help="training examples on planes"
    )
    parser.add_argument(
        "--resolution", type=int, default=41, help="points along each side of a plane"
    )
    parser.add_argument(
        "--jobs", type=int, default=2, help="jobs at the same time, one thread each"
    )
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything; no result")
    options = parser.parse_args()
    if options.smoke:
        options.epochs, options.points, options.examples = 1, 5, 500
        options.plane_examples, options.resolution = 200, 9
    options.out.mkdir(parents=True, exist_ok=True)
    runs = options.runs or [options.out / f"seed{seed}" for seed in range(3)]
    stages = [
        []
        if options.runs
        else [(f"seed{i}", train(i, run, options)) for i, run in enumerate(runs)],
        [(kind, curve(kind, runs, options)) for kind in KINDS],
        [(name, plane(name, runs, options)) for name in (*KINDS, "optima")],
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        for stage in stages:
            names = ", ".join(name for name, _ in stage)
            print(f"{names}; follow it in {options.out}/*.log", flush=True)
            codes = list(pool.map(lambda job: lowland(job[0], job[1], options.out), stage))
            if any(codes):
                print(f"failed: see {options.out}/*.log", file=sys.stderr)
                return 1
    text = results(options)
    print(text)
    if not options.smoke:
        rewrite(HERE / "README.md", text)
    return 0


def train(seed: int, run: Path, options: argparse.Namespace) -> list[str]:
    overrides = SMOKE if options.smoke else []
    return ["run", str(HERE / "config.yaml"), f"seed={seed}", f"out={run}", *overrides]


def curve(kind: str, runs: list[Path], options: argparse.Namespace) -> list[str]:
    return [
        *("connect", str(runs[0]), str(runs[1]), "--kind", kind),
        *("--epochs", str(options.epochs), "--points", str(options.points)),
        *("--examples", str(options.examples), "--out", str(options.out / kind)),
    ]


def plane(name: str, runs: list[Path], options: argparse.Namespace) -> list[str]:
    folders = map(str, runs) if name == "optima" else [str(options.out / name)]
    return [
        *("scan", *folders, "--resolution", str(options.resolution), "--refine", "0.02"),
        *("--examples", str(options.plane_examples), "--out", str(options.out / f"plane-{name}")),
    ]


def results(options: argparse.Namespace) -> str:
    """A table of the curves, and the number of points evaluated on each plane."""
    rows: dict[str, dict] = {}
    for kind in KINDS:
        for row in Table.load(options.out / kind / "records" / "curves.json").rows():
            rows.setdefault(row["method"], row)
    today = datetime.datetime.now(datetime.UTC).date()
    columns = {k: column for k, column in COLUMNS.items() if k in next(iter(rows.values()))}
    table = Table.from_rows(
        {"curve": title} | {name: form.format(row[k]) for k, (name, form) in columns.items()}
        for title, row in rows.items()
    )
    lines = [
        f"{today}, {processor()}, {os.cpu_count()} cores, torch {torch.__version__}; "
        f"`python studies/mode-connectivity/run.py --epochs {options.epochs}`.",
        "",
        f"Along the curves, {options.points} points, {options.examples:,} training images and the "
        "test images at each point, BatchNorm statistics recomputed:",
        "",
        table.to_markdown(),
    ]
    line = rows["Line"]["barrier"]
    for title, row in rows.items():
        if title != "Line":
            share = row["barrier"] / line
            lines += ["", f"{title}: {share:.1%} of the line's barrier."]
    lines += ["", f"The planes, {options.plane_examples:,} training images:", ""]
    for name in (*KINDS, "optima"):
        surface = SurfaceResult.load(
            next((options.out / f"plane-{name}" / "records").glob("*.npz"))
        )
        grid = len(surface.x) * len(surface.y)
        lines.append(f"- {name}: {surface.evaluations} of {grid} points evaluated.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
