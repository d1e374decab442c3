"""Why is the loss in the volume between two modes of CIFAR-10 above theirs?

The weight of the volume in the loss, or the distance of the modes? The volume is fitted with a
hundredth of the paper's weight, once between the networks as they are and once after an alignment
of their units. Start `python studies/simplex/modes.py` in the project's root; the same command
resumes a study that was stopped.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from pathlib import Path

import torch
from volumes import error_sentence, growth_table, point_metrics

from lowland.cli.simplex_folder import COMPLEX
from lowland.records import GrowthResult

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from command import lowland  # noqa: E402
from readme import processor, rewrite  # noqa: E402

STRENGTH = 1e-3  # the paper's is 0.1
EPOCHS, SAMPLES, CONNECTORS = 8, 3, 2  # three points per step
POINTS = 200
#: folder -> title, further options
VOLUMES: dict[str, tuple[str, list[str]]] = {
    "gentle": ("The networks as they are", []),
    "aligned": ("Their units in one order", ["--align"]),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/simplex-modes"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    run = options.out / "run"
    # single precision: processors without units for bfloat16 are slower with it
    train = ["run", str(HERE / "cifar10.yaml"), f"out={run}", "autocast=null"]
    train += ["methods=[ensemble]", "ensemble=2"]
    fit = ["simplex", str(run), "--connectors", str(CONNECTORS), "--epochs", str(EPOCHS)]
    fit += ["--samples", str(SAMPLES), "--strength", str(STRENGTH), "--rise", "0.2"]
    fit += ["--points", "20", "--examples", "5000"]
    jobs = {"run": train} | {
        name: [*fit, *extra, "--out", str(run / name)] for name, (_, extra) in VOLUMES.items()
    }
    for name, job in jobs.items():
        print(f"{name}; follow it in {options.out}/{name}.log", flush=True)
        if lowland(name, job, options.out):
            print(f"failed: see {options.out}/{name}.log", file=sys.stderr)
            return 1
    text = results(run)
    print(text)
    rewrite(HERE / "README.md", text, by="modes.py")
    return 0


def results(run: Path) -> str:
    """Tables and sentences for the README."""
    today = datetime.datetime.now(datetime.UTC).date()
    lines = [
        f"{today}, {processor()}, {os.cpu_count()} cores, torch {torch.__version__}; "
        "`python studies/simplex/modes.py`.",
    ]
    for name, (title, _) in VOLUMES.items():
        record = run / name / "records" / f"growth-{COMPLEX}.json"
        lines += ["", f"{title}:", "", *growth_table(GrowthResult.load(record))]
    lines += ["", error_sentence(point_metrics(run / "aligned", POINTS))]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
