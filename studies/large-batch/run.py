"""Keskar's experiment at the size of a processor: flat and sharp solutions and their test error.

Start `python studies/large-batch/run.py` in the project's root. Each solution is a cell of some
minutes, stored when it ends; the same command resumes a study that was stopped. `--smoke` takes a
minute and checks that all steps run; it is no result.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import lowland as ll
from lowland.files import write_text

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from measures import losses, measure  # noqa: E402
from network import (  # noqa: E402
    MEASURED,
    TARGET,
    TASK,
    Recipe,
    Split,
    StridedNet,
    load_data,
    loader,
    train,
)
from readme import processor, rewrite  # noqa: E402
from report import line_picture, pictures, tables  # noqa: E402

SMALL, LARGE = 64, 2048
RATES = {SMALL: (0.02, 0.1), LARGE: (0.4, 1.6)}
DECAYS = (0.0, 1e-4, 1e-3)
RADIUS = 0.05  # of SAM
MOST_EPOCHS = 400


def recipes() -> list[Recipe]:
    """24 recipes and two more seeds of the plain ones; those that say most come first."""
    plain = [Recipe(batch, RATES[batch][1], 0.0) for batch in (SMALL, LARGE)]
    grid = [
        Recipe(batch, lr, decay, sam)
        for decay in DECAYS
        for sam in (None, RADIUS)
        for lrs in zip(*(reversed(rates) for rates in RATES.values()), strict=True)
        for batch, lr in zip(RATES, lrs, strict=True)
    ]
    seeds = [Recipe(one.batch, one.lr, 0.0, seed=seed) for seed in (1, 2) for one in plain]
    first = [one for one in grid if one.weight_decay == 0.0]
    return [*first, *seeds, *[one for one in grid if one.weight_decay > 0.0]]


def densities() -> list[Recipe]:
    """The six solutions with a full spectrum: both batches plain, with SAM, with weight decay."""
    return [
        Recipe(batch, RATES[batch][1], decay, sam)
        for batch in (SMALL, LARGE)
        for decay, sam in ((0.0, None), (0.0, RADIUS), (DECAYS[-1], None))
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cifar10"))
    parser.add_argument("--out", type=Path, default=Path("runs/large-batch"))
    parser.add_argument("--minutes", type=float, help="no new solution after so many")
    parser.add_argument("--smoke", action="store_true", help="two short cells; no result")
    parser.add_argument("--table", action="store_true", help="only write the tables from results/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = options.out / "smoke" if options.smoke else HERE / "results"
    for folder in (results, options.out):
        folder.mkdir(parents=True, exist_ok=True)
    if not options.table:
        solve_all(options, results)
    records = [json.loads(path.read_text()) for path in sorted(results.glob("*-seed*.json"))]
    text = tables(records)
    print(text)
    if not options.smoke:
        pictures(records, HERE)
        rewrite(HERE / "README.md", text)
    return 0


def solve_all(options: argparse.Namespace, results: Path) -> None:
    """Trains and measures what is not there yet."""
    sizes = {"train": 300, "test": 200} if options.smoke else {"train": 10_000, "test": None}
    split, test = load_data(options.data, **sizes)
    chosen = recipes()[:2] if options.smoke else recipes()
    began = time.monotonic()
    for number, recipe in enumerate(chosen, start=1):
        place = results / f"{recipe.name}.json"
        if place.exists():
            continue
        if options.minutes and time.monotonic() - began > 60 * options.minutes:
            print("the time is over; the same command goes on", flush=True)
            return
        print(f"{number} of {len(chosen)}: {recipe.name}", flush=True)
        record = solution(recipe, split, test, options)
        write_text(place, json.dumps(record) + "\n")
    small, large = chosen[:2]
    weights = [load_file(weights_file(options.out, one)) for one in (small, large)]
    line_picture(surface_of(split), weights, loader(test), results)


def weights_file(out: Path, recipe: Recipe) -> Path:
    return out / f"{recipe.name}.safetensors"


def surface_of(split: Split) -> ll.LossSurface:
    """The loss of the measured training examples, which estimate BatchNorm statistics, too."""
    measured = loader((split[0][:MEASURED], split[1][:MEASURED]))
    return ll.LossSurface(StridedNet(), TASK, measured)


def solution(
    recipe: Recipe, split: Split, test: Split, options: argparse.Namespace
) -> dict[str, Any]:
    """Trains one recipe and measures where it ends."""
    start = time.perf_counter()
    target, most = (2.0, 3) if options.smoke else (TARGET, MOST_EPOCHS)
    model, epochs, reached = train(recipe, split, target, most)
    seconds = time.perf_counter() - start
    save_file(model.state_dict(), weights_file(options.out, recipe))
    surface = surface_of(split)
    return {
        "recipe": recipe.settings(),
        "epochs": epochs,
        "reached": reached,
        "training seconds": round(seconds, 1),
        **losses(surface, model, loader(test)),
        **measure(surface, model, density=recipe in densities()),
        "date": str(datetime.datetime.now(datetime.UTC).date()),
        "machine": f"{processor()}, one thread, torch {torch.__version__}",
    }


if __name__ == "__main__":
    raise SystemExit(main())
