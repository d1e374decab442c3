"""The pictures of a run folder, drawn from its records alone."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from lowland import plots
from lowland.cli import subspaces
from lowland.cli.methods import Methods
from lowland.errors import StoreError
from lowland.evaluate import reliability
from lowland.records import TrainingLog
from lowland.trajectory import SWA

# more lines would hide one another
COMPARED = ("sgd", "swa", "swag", "ensemble", "multiswag", "espro")


def draw_all(methods: Methods) -> list[str]:
    """Writes pictures/*.png; gives their names."""
    folder = methods.folder.path / "pictures"
    done = []
    trained = methods.folder.record("training-swa-0.json").is_file()
    if trained:
        record = curves(methods)
        record.save(methods.folder.record("curves.json"))
        plots.save(plots.training(record), folder / "training.png")
        done.append("training.png")
    preds = {methods.title(m): methods.predictive(m) for m in methods.config.methods}
    many = {name: p for name, p in preds.items() if p.nll_by_samples is not None and p.samples > 1}
    if many:
        plots.save(plots.samples(many), folder / "nll-by-samples.png")
        done.append("nll-by-samples.png")
    if "espro" in methods.config.methods:
        numbers = range(methods.config.simplex.components)
        growths = {f"simplex {i + 1}": methods.modes.growth(i) for i in numbers}
        plots.save(plots.growth(growths), folder / "growth.png")
        done.append("growth.png")
    if "subspace" in methods.config.methods:
        modes = methods.modes
        for name, axes in subspaces.drawn(modes.chain(), modes.plane(False)).items():
            plots.save(axes, folder / f"{name}.png")
            done.append(f"{name}.png")
    return done + _reliability(methods, folder)


def curves(methods: Methods) -> TrainingLog:
    """The walk's log, with SWA as it grew, the EMA, and the annealed run beside it."""
    path = methods.folder.record("curves.json")
    with suppress(StoreError):  # not there yet, or damaged: drawn from what is
        return TrainingLog.load(path)
    modes, setup = methods.modes, methods.setup
    log, store = modes.log("swa-0"), modes.store("swa-0")
    swa, values = SWA(setup.layout), []
    for i in range(len(store)):
        swa.update(store[i])
        values.append(float(setup.surface(swa.point, loader=setup.validation)))
    epochs = torch.tensor(store.steps, dtype=torch.float64) / modes.steps
    averages = {"SWA": {"epoch": epochs, "nll": torch.tensor(values, dtype=torch.float64)}}
    if "ema_nll" in log.columns:
        averages["EMA"] = {"epoch": log.columns["epoch"], "nll": log.columns["ema_nll"]}
    if methods.folder.record("training-sgd-0.json").is_file():
        annealed = modes.log("sgd-0").columns
        averages["SGD, annealed"] = {"epoch": annealed["epoch"], "nll": annealed["nll"]}
    return replace(log, averages=averages)


def _reliability(methods: Methods, folder: Path) -> list[str]:
    """Confidence against accuracy in ten bins of equally many rows."""
    chosen = [m for m in COMPARED if m in methods.config.methods]
    preds = {methods.title(method): methods.predictive(method) for method in chosen}
    records = {
        # the table's error, over fifteen bins of equal width, is the one to quote
        f"{name} (ECE {p.figures['ece']:.3f})": reliability(
            p, bins=10, equal="count", task=methods.setup.task
        )
        for name, p in preds.items()
        if p.probs is not None and p.targets is not None
    }
    if not records:
        return []
    plots.save(plots.reliability(records, style="gap", ece=False), folder / "reliability.png")
    return ["reliability.png"]
