"""The study of the defaults: averages against SGD, with the shipped configurations.

Start `python studies/defaults/run.py` in the project's root. The same command resumes a study that
was stopped. `--smoke` takes minutes and checks that all steps run; it is no result.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lowland.files import write_text
from lowland.records import Table

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from command import lowland  # noqa: E402
from readme import processor, rewrite  # noqa: E402

METHODS = ["sgd", "ema", "swa", "swag", "fge"]
SMALL = ["boston", "concrete", "energy", "skillcraft", "yacht"]
LARGE = ["elevators", "keggdirected", "keggundirected", "naval", "pol", "protein"]
LIMIT = 0.02  # nats that an average may be worse by, or two standard errors
SMOKE = ["train.epochs=20"]
# the demo's own settings of averages are taken back
DEMO = ("average={}", "fge={}")


@dataclass(frozen=True)
class Job:
    """A data set: a configuration, what is put over it, and what is repeated over."""

    name: str
    config: str
    runs: int
    over: str
    settings: tuple[str, ...] = ()

    def arguments(self, out: Path, smoke: bool) -> list[str]:
        """Of the command line."""
        return [
            *("run", f"configs/{self.config}.yaml", f"out={out / self.name}"),
            *(f"repeat.over={self.over}", f"repeat.values={2 if smoke else self.runs}"),
            f"methods=[{','.join(METHODS)}]",
            *("threads=1", "connect=null", *self.settings, *(SMOKE if smoke else [])),
        ]


def jobs() -> list[Job]:
    """All data sets, the long ones first."""
    images = [
        Job(
            f"CIFAR-10, {epochs} epochs",
            "cifar10",
            3,
            "seed",
            ("data.args.train=10000", f"train.epochs={epochs}"),
        )
        for epochs in (30, 10)
    ]
    sets = [
        Job(name, "uci", runs, "data.args.split", (f"data.args.name={name}",))
        for names, runs in ((LARGE, 2), (SMALL, 10))
        for name in names
    ]
    return [*images, *sets, Job("digits", "digits", 10, "seed", DEMO)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/defaults"))
    parser.add_argument("--sets", nargs="*", help="only these data sets")
    parser.add_argument("--jobs", type=int, default=2, help="data sets at the same time")
    parser.add_argument("--smoke", action="store_true", help="short runs; no result")
    parser.add_argument("--table", action="store_true", help="only write the tables from results/")
    options = parser.parse_args()
    chosen = [job for job in jobs() if not options.sets or job.name in options.sets]
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "smoke" if options.smoke else HERE / "results"
    results.mkdir(parents=True, exist_ok=True)

    def run(job: Job) -> int:
        code = lowland(job.name, job.arguments(options.out, options.smoke), options.out)
        if code == 0:
            write_text(results / f"{job.name}.json", json.dumps(result(job, options.out)) + "\n")
            print(f"{job.name}: done", flush=True)
        return code

    if not options.table:
        print(f"training; follow it in {options.out}/*.log", flush=True)
        with ThreadPoolExecutor(options.jobs) as pool:
            codes = dict(zip(chosen, pool.map(run, chosen), strict=True))
        failed = [job.name for job, code in codes.items() if code]
        if failed:
            print(f"failed: {', '.join(failed)}; see {options.out}/*.log", file=sys.stderr)
            return 1
    text = tables(results)
    print(text)
    if not options.smoke:
        rewrite(HERE / "README.md", text)
    return 0


def result(job: Job, out: Path) -> dict[str, Any]:
    """The metrics of a finished set: mean and standard error of each method and difference."""
    comparison = Table.load(out / job.name / "comparison.json")
    pairs = Table.load(out / job.name / "differences.json")
    keys = ("nll", "nll_se")
    metrics = {
        row["method"]: {key: float(row.get(key, math.nan)) for key in (*keys, "epochs")}
        for row in comparison.rows()
    }
    differences = {
        row["method"]: {key: float(row.get(key, math.nan)) for key in keys} for row in pairs.rows()
    }
    return {
        "name": job.name,
        "runs": len(list((out / job.name).glob("*-*/records/comparison.json"))),
        "date": str(datetime.datetime.now(datetime.UTC).date()),
        "machine": f"{processor()}, one thread, torch {torch.__version__}",
        "methods": metrics,
        "differences": differences,
    }


def tables(results: Path) -> str:
    """Differences from SGD for each set, pooled over sets, and what they cost, as Markdown."""
    order = [job.name for job in reversed(jobs())]
    there = [json.loads(path.read_text()) for path in results.glob("*.json")]
    there.sort(key=lambda each: order.index(each["name"]))
    methods = list(there[0]["differences"])
    rows = []
    for each in there:
        sgd = next(iter(each["methods"].values()))["nll"]
        cells = {method: difference(each["differences"][method]) for method in methods}
        rows.append({"data": each["name"], "runs": str(each["runs"]), "SGD": f"{sgd:.3f}"} | cells)
    means, costs = {}, {}
    for method in methods:
        mean, error = pooled([each["differences"][method] for each in there])
        means[method] = f"{mean:+.3f} ± {error:.3f}"
        share = [
            each["methods"][method]["epochs"] / next(iter(each["methods"].values()))["epochs"]
            for each in there
        ]
        costs[method] = f"{sum(share) / len(share):.2f}"
    rows += [{"data": "**mean over sets**"} | means]
    rows += [{"data": "training, SGD = 1", "SGD": "1.00"} | costs]
    lines = [
        f"{max(each['date'] for each in there)}, {there[0]['machine']}, {os.cpu_count()} cores; "
        "`python studies/defaults/run.py`.",
        "",
        "Test NLL minus that of SGD in the same run, in nats: mean ± standard error. Negative: the "
        f"average is better. Bold: worse by more than {LIMIT} and two standard errors.",
        "",
        Table.from_rows(rows).to_markdown(),
    ]
    return "\n".join(lines)


def difference(value: dict[str, float]) -> str:
    """A mean and its error, bold where it breaks the promise."""
    text = f"{value['nll']:+.3f} ± {value['nll_se']:.3f}"
    return f"**{text}**" if value["nll"] > max(LIMIT, 2 * value["nll_se"]) else text


def pooled(values: list[dict[str, float]]) -> tuple[float, float]:
    """The mean over sets, with the error of the sets' own errors."""
    n = len(values)
    mean = sum(value["nll"] for value in values) / n
    return mean, math.sqrt(sum(value["nll_se"] ** 2 for value in values)) / n


if __name__ == "__main__":
    sys.exit(main())
