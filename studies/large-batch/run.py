"""Keskar's experiment at the size of a processor: flat and sharp solutions and their test error.

Start `python studies/large-batch/run.py` in the project's root. Each solution is a cell of some
minutes, stored when it ends; the same command resumes a study that was stopped. `--smoke` takes
seconds and checks that all steps run; it is no result.
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
from measures import SMOKE, Effort, losses, measure  # noqa: E402
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
from report import LINE, pictures, tables  # noqa: E402

BATCHES = (64, 2048)
LRS = (0.1, 0.02)  # the large batch does not train at 1.6, and hardly at 0.4
DECAYS = (0.0, 1e-4, 1e-3)
RADIUS = 0.05  # of SAM
MOST_EPOCHS = 400


def recipes() -> list[Recipe]:
    """24 recipes and two more seeds of the plain ones; those that say most come first."""
    grid = [
        Recipe(batch, lr, decay, sam)
        for decay in DECAYS
        for sam in (None, RADIUS)
        for lr in LRS
        for batch in BATCHES
    ]
    seeds = [Recipe(batch, LRS[0], 0.0, seed=seed) for seed in (1, 2) for batch in BATCHES]
    first = [one for one in grid if one.weight_decay == 0.0]
    return [*first, *seeds, *[one for one in grid if one.weight_decay > 0.0]]


def densities() -> list[Recipe]:
    """The six solutions with a full spectrum: both batches plain, with SAM, with weight decay."""
    return [
        Recipe(batch, LRS[0], decay, sam)
        for batch in BATCHES
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
    pictures(records, results, results if options.smoke else HERE)
    if not options.smoke:
        rewrite(HERE / "README.md", text)
    return 0


def solve_all(options: argparse.Namespace, results: Path) -> None:
    """Trains and measures what is not there yet."""
    sizes = {"train": 80, "test": 20} if options.smoke else {"train": 10_000, "test": None}
    split, test = load_data(options.data, **sizes)
    chosen = recipes()[:2] if options.smoke else recipes()
    began = time.monotonic()
    for number, recipe in enumerate(chosen, start=1):
        place = results / f"{recipe.name}.json"
        if not place.exists():
            if options.minutes and time.monotonic() - began > 60 * options.minutes:
                print("the time is over; the same command goes on", flush=True)
                return
            print(f"{number} of {len(chosen)}: {recipe.name}", flush=True)
            record = solution(recipe, split, test, options)
            write_text(place, json.dumps(record) + "\n")
        if number == 2:
            line(chosen[:2], split, test, options, results)


def line(
    ends: list[Recipe], split: Split, test: Split, options: argparse.Namespace, results: Path
) -> None:
    """Loss and accuracy from the small-batch solution to the large-batch one."""
    if (results / LINE).exists():
        return
    surface = surface_of(split)
    points = []
    for recipe in ends:
        if not weights_file(options.out, recipe).exists():  # results outlive the folder of weights
            solve(recipe, split, options)
        model = StridedNet()
        model.load_state_dict(load_file(weights_file(options.out, recipe)))
        points.append(surface.point(model))
    t = torch.linspace(-1, 2, 25)
    ll.path(ll.Line(*points), surface, t=t, loader=loader(test)).save(results / LINE)


def weights_file(out: Path, recipe: Recipe) -> Path:
    return out / f"{recipe.name}.safetensors"


def surface_of(split: Split) -> ll.LossSurface:
    """The loss of the measured training examples, which estimate BatchNorm statistics, too."""
    measured = loader((split[0][:MEASURED], split[1][:MEASURED]))
    return ll.LossSurface(StridedNet(), TASK, measured)


def solve(
    recipe: Recipe, split: Split, options: argparse.Namespace
) -> tuple[StridedNet, int, bool]:
    """Trains one recipe: the network, its epochs, and whether it reached the loss."""
    target, most = (2.0, 2) if options.smoke else (TARGET, MOST_EPOCHS)
    model, epochs, reached = train(recipe, split, target, most)
    save_file(model.state_dict(), weights_file(options.out, recipe))
    return model, epochs, reached


def solution(
    recipe: Recipe, split: Split, test: Split, options: argparse.Namespace
) -> dict[str, Any]:
    """Trains one recipe and measures where it ends."""
    start = time.perf_counter()
    model, epochs, reached = solve(recipe, split, options)
    seconds = time.perf_counter() - start
    surface = surface_of(split)
    return {
        "recipe": recipe.settings(),
        "epochs": epochs,
        "reached": reached,
        "training seconds": round(seconds, 1),
        **losses(surface, model, loader(test)),
        **measure(
            surface,
            model,
            density=recipe in densities(),
            effort=SMOKE if options.smoke else Effort(),
        ),
        "date": str(datetime.datetime.now(datetime.UTC).date()),
        "machine": f"{processor()}, one thread, torch {torch.__version__}",
    }


if __name__ == "__main__":
    raise SystemExit(main())
