"""Small UCI regression: SGD, SWA, SWAG, deep ensembles and MultiSWAG over the 20 standard splits.

`python studies/uci/run.py` trains every set's 20 x 5 networks side by side, in three stages:

- papers: the protocol of Izmailov et al. 2019 (learning rate, decay, batch, epochs, start of the
  walk), SWAG at scale 1;
- tuned: for each split the rate, decay, budget and scale with the lowest NLL on a fifth of the
  rows outside of its test split, then trained on all of those rows;
- falling: the tuned SGD, whose rate falls to a lower one at which the walk goes on; that rate and
  the scale are chosen as before. Added once the tuned stage of boston, concrete and energy was
  seen, where walks at the rate that SGD starts with lost to SGD on energy.

The grids stand below, fixed before the first run; no test row is looked at before the last
predictions. Each set and stage leaves one file in `results/` and is skipped when that is there; a
run that was stopped goes on where it was. The tables of the README are made from these files.
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
from recommended import recommended
from report import tables
from subspaces import papers_subspaces
from walks import falling, papers, tuned

import lowland as ll
from lowland.files import write_text

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from readme import processor, rewrite  # noqa: E402

STAGES = {
    "papers": papers,
    "tuned": tuned,
    "falling": falling,
    "papers-subspaces": papers_subspaces,
    "recommended": recommended,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/uci"))
    parser.add_argument("--out", type=Path, default=Path("runs/uci"), help="checkpoints")
    parser.add_argument("--table", action="store_true", help="rewrite the README's tables alone")
    parser.add_argument("--smoke", action="store_true", help="short, for a look; not a result")
    options = parser.parse_args()
    results = options.out / "smoke" if options.smoke else HERE / "results"
    if options.table:
        rewrite(HERE / "README.md", tables(results))
        return 0
    torch.set_num_threads(1)  # fastest for such networks
    # page faults take a fifth of a step of 100 networks in batches of 100, two fifths with 240
    ll.keep_freed_memory()
    for name, stage in itertools.product(options.sets, options.stages):
        path = results / f"{name}-{stage}.json"
        if path.is_file():
            continue
        job = Job(name, SETS[name], options.data, options.out, results)
        if options.smoke:
            job = smoke(job)
        began = time.time()
        found = STAGES[stage](job)
        record = {
            "set": name,
            "stage": stage,
            "date": str(datetime.datetime.now(datetime.UTC).date()),
            "machine": f"{processor()}, {os.cpu_count()} cores, one thread",
            "torch": torch.__version__,
            "command": "python studies/uci/run.py",
            "seconds": {key: round(value, 1) for key, value in job.took.items()},
            "protocol": asdict(job.protocol),
            "splits": job.splits,
            "modes": job.modes,
            "samples": SAMPLES,
            **found,
        }
        write_text(path, json.dumps(record, indent=1) + "\n")
        print(f"{name} {stage}: {time.time() - began:.0f} s, {path}", flush=True)
        if not options.smoke:
            rewrite(HERE / "README.md", tables(results))
    return 0


def smoke(job: Job) -> Job:
    """A thirtieth of the epochs on two splits: shows that everything runs."""
    old = job.protocol
    epochs = max(old.epochs // 30, 9)
    start = epochs * old.start // old.epochs
    short = replace(
        old,
        epochs=epochs,
        start=start,
        budgets=(6, 12),
        grid=Grid(rates=(1e-2,), decays=(1e-3,)),
        sampling=Sampling(chains=4, warmup=10, samples=2),
    )
    return replace(job, protocol=short, out=job.out / "smoke", splits=2, modes=2)


if __name__ == "__main__":
    sys.exit(main())
