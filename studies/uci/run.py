"""Small UCI regression: SGD, SWA, SWAG, deep ensembles and MultiSWAG over the 20 standard splits.

`python studies/uci/run.py` trains the 20 x 5 networks of each data set at once, in stages:

- papers: the protocol of Izmailov et al. 2019 (learning rate, decay, batch size, epochs, first
  averaged epoch), SWAG at scale 1;
- tuned: for each split the learning rate, decay, budget and scale with the lowest NLL on a fifth of
  the examples outside of its test split; then networks trained on all of these examples;
- falling: the tuned SGD with a learning rate that falls to a lower constant, at which iterates are
  averaged; this learning rate and the scale are chosen as before. This stage was added after the
  results of the tuned stage on boston, concrete and energy, where averages at the first learning
  rate were worse than SGD on energy;
- papers-subspaces: posteriors in subspaces, from the networks of the papers stage;
- recommended: what this library recommends, with settings and temperatures chosen on validation
  examples.

The grids were fixed before the first run, and test examples are used for the last predictions only.
Each set and stage leaves one file in `results/` and is skipped where that is there. The same
command resumes a study that was stopped. The tables of the README are made from these files.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from job import SAMPLES, SETS, Grid, Job, Sampling
from recommended import recommended_stage
from report import tables
from subspaces import papers_subspaces_stage
from trajectories import falling_stage, papers_stage, tuned_stage

import lowland as ll
from lowland.files import write_text

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from readme import processor, rewrite  # noqa: E402

STAGES = {
    "papers": papers_stage,
    "tuned": tuned_stage,
    "falling": falling_stage,
    "papers-subspaces": papers_subspaces_stage,
    "recommended": recommended_stage,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/uci"))
    parser.add_argument("--out", type=Path, default=Path("runs/uci"), help="checkpoints")
    parser.add_argument("--table", action="store_true", help="rewrite the README's tables alone")
    parser.add_argument(
        "--smoke", action="store_true", help="a few epochs of everything; no result"
    )
    options = parser.parse_args()
    results = options.out / "smoke" if options.smoke else HERE / "results"
    if options.table:
        rewrite(HERE / "README.md", tables(results))
        return 0
    torch.set_num_threads(1)  # fastest for networks of this size
    # page faults take a fifth of a step of 100 networks in batches of 100, two fifths with 240
    ll.keep_freed_memory()
    for name, stage in itertools.product(options.sets, options.stages):
        path = results / f"{name}-{stage}.json"
        if path.is_file():
            continue
        job = Job(name, SETS[name], options.data, options.out, results)
        if options.smoke:
            job = smoke(job)
        start = time.time()
        result = STAGES[stage](job)
        record = {
            "set": name,
            "stage": stage,
            "date": str(datetime.datetime.now(datetime.UTC).date()),
            "machine": f"{processor()}, {os.cpu_count()} cores, one thread",
            "torch": torch.__version__,
            "command": "python studies/uci/run.py",
            "seconds": {key: round(value, 1) for key, value in job.seconds.items()},
            "protocol": asdict(job.protocol),
            "splits": job.splits,
            "modes": job.modes,
            "samples": SAMPLES,
            **result,
        }
        write_text(path, json.dumps(record, indent=1) + "\n")
        print(f"{name} {stage}: {time.time() - start:.0f} s, {path}", flush=True)
        if not options.smoke:
            rewrite(HERE / "README.md", tables(results))
    return 0


def smoke(job: Job) -> Job:
    """A thirtieth of the epochs on two splits, which checks that all stages run."""
    old = job.protocol
    epochs = max(old.epochs // 30, 9)
    start = epochs * old.start // old.epochs
    short = replace(
        old,
        epochs=epochs,
        start=start,
        budgets=(6, 12),
        grid=Grid(rates=(1e-2,), decays=(1e-3,)),
        scale_draws=3,
        sampling=Sampling(chains=4, warmup=4, samples=2, vi=(4, 30)),
    )
    return replace(job, protocol=short, out=job.out / "smoke", splits=2, modes=2)


if __name__ == "__main__":
    sys.exit(main())
