"""Runs the benchmarks in turn and writes their results into `benchmarks/README.md`.

`python benchmarks/run.py` runs all and rewrites the results. `run.py swag` runs one and prints
only.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

from lowland.records import Table

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "studies"))
from readme import processor, rewrite  # noqa: E402

HELPERS = {"run", "common"}


def main() -> int:
    names = sys.argv[1:] or sorted(p.stem for p in HERE.glob("*.py") if p.stem not in HELPERS)
    for name in names:
        if not (HERE / f"{name}.py").is_file():
            print(f"{name}: no such benchmark in {HERE}", file=sys.stderr)
            return 2
    rows = []
    load = [load_average()]
    for name in names:
        print(f"{name} ...", flush=True)
        out = subprocess.run(
            [sys.executable, str(HERE / f"{name}.py"), "--json"], stdout=subprocess.PIPE, text=True
        )
        if out.returncode:
            print(f"{name} failed; the results are left as they were", file=sys.stderr)
            return 1
        rows += [{"script": name} | row for row in json.loads(out.stdout.splitlines()[-1])]
        load.append(load_average())
    text = results(rows, load)
    print(text)
    if not sys.argv[1:]:
        rewrite(HERE / "README.md", text)
    return 0


def results(rows: list[dict[str, object]], load: list[float]) -> str:
    threads = f"OMP_NUM_THREADS={torch.get_num_threads()}"
    table = Table.from_rows(
        {
            "work": row["work"],
            "against": row["against"],
            "ratio": f"{row['ratio']:.2f}",
            "reach": str(row["reach"]),
            "": "holds" if row["holds"] else "**missed**",
            "times": row["detail"],
            "script": f"`{row['script']}.py`",
        }
        for row in rows
    )
    today = datetime.datetime.now(datetime.UTC).date()
    lines = [
        f"{today}, {processor()}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"Python {platform.python_version()}; `{threads} python benchmarks/run.py`, "
        f"{torch.get_num_threads()} threads; load {min(load):.1f} to {max(load):.1f} "
        "(one minute's, before, between and after the scripts).",
        "",
        table.to_markdown(),
    ]
    return "\n".join(lines)


def load_average() -> float:
    return os.getloadavg()[0]


if __name__ == "__main__":
    sys.exit(main())
