"""How wide the minima of SWA and SGD are: rays, the line between them, planes.

Start `python studies/width/run.py` in the project's root. Each training and each measurement is a
cell of one to three minutes, stored when it ends; the same command resumes a study that was
stopped, and draws what is there. `--smoke` takes seconds and checks that all steps run; it is no
result.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from lowland.files import write_text
from lowland.records import Record

HERE = Path(__file__).parent
sys.path += [str(HERE.parent), str(HERE.parent / "large-batch")]
from measurements import Measurements, Sizes  # noqa: E402
from network import load_data  # noqa: E402
from readme import processor, rewrite  # noqa: E402
from report import pictures, tables  # noqa: E402
from solutions import METHODS, Training, train  # noqa: E402

Cells = dict[Path, Callable[[], Record]]  # the file of a record -> what computes it


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cifar10"))
    parser.add_argument("--out", type=Path, default=Path("runs/width"))
    parser.add_argument("--seeds", type=int, default=3, help="pictures are those of seed 0")
    parser.add_argument("--cells", type=int, help="stop after so many")
    parser.add_argument("--smoke", action="store_true", help="tiny steps of everything; no result")
    options = parser.parse_args()
    torch.set_num_threads(1)
    out, results = options.out, HERE / "results"
    if options.smoke:
        out = results = options.out / "smoke"
    for folder in (out, results):
        folder.mkdir(parents=True, exist_ok=True)
    rest = {path: work for path, work in cells(options, out, results).items() if not path.exists()}
    for path, work in list(rest.items())[: options.cells]:
        start = time.perf_counter()
        work().save(path)
        write_text(results / "machine.txt", machine())
        print(f"{path.stem}: {time.perf_counter() - start:.0f} s", flush=True)
    text = tables(results)
    print(text)
    pictures(results, results if options.smoke else HERE)
    if not options.smoke:
        rewrite(HERE / "README.md", text)
    return 0


def machine() -> str:
    today = datetime.datetime.now(datetime.UTC).date()
    where = f"{processor()}, one thread, torch {torch.__version__}"
    return f"{today}, {where}; `python studies/width/run.py`.\n"


def cells(options: argparse.Namespace, out: Path, results: Path) -> Cells:
    """All cells in their order: everything of seed 0, then solutions and rays of other seeds."""
    sizes, training, seeds = Sizes(), Training(), options.seeds
    counts = {"train": 10_000, "test": None}
    if options.smoke:
        sizes, training, seeds = Sizes.smoke(), Training(batch=20, epochs=4), 1
        counts = {"train": 40, "test": 20}
    split, test = load_data(options.data, **counts)
    every: Cells = {}
    for seed in range(seeds):
        runs = {method: out / f"seed{seed}-{method}" for method in METHODS}
        for method, run in runs.items():
            every[out / f"{run.name}.json"] = partial(train, method, split, run, training, seed)
        measurements = Measurements(split, test, runs, sizes)
        for name, work in measurements.all(planes=seed == 0).items():
            every[results / f"seed{seed}-{name}.json"] = work
    return every


if __name__ == "__main__":
    raise SystemExit(main())
