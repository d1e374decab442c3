"""Artifacts of simplexes that grow around trained networks (SPRO), and how they are grown."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.core import Point
from lowland.core.seeds import seed_for
from lowland.geometry import Barycentric, Simplex
from lowland.progress import Progress, Report
from lowland.records import GrowthResult
from lowland.runs.config import Growing
from lowland.runs.setup import Setup
from lowland.runs.training import Annealed
from lowland.train import connect_modes, spro
from lowland.trajectory import DecaySchedule

if TYPE_CHECKING:
    from lowland.runs.run import Run

SHAPE, GROWTH = "simplex.safetensors", "growth.json"


@dataclass(frozen=True)
class GrowthSettings:
    """What changes a simplex, but for the network that it grows around."""

    network: int
    seed: int
    growing: Mapping[str, Any]
    train: Mapping[str, Any]
    compile: bool
    evaluation: Mapping[str, Any]


@dataclass(frozen=True)
class Grown:
    """A simplex, and how it grew."""

    simplex: Simplex
    growth: GrowthResult


class GrownSimplex(Artifact):
    """The simplex around an annealed network."""

    kind = "simplex"

    def __init__(self, run: Run, network: int) -> None:
        self.run = run
        self.annealed: Annealed = run.annealed(network)
        config = run.config
        train = config.train.model_dump(exclude={"epochs", "lr"})
        super().__init__(
            f"simplex/{network}",
            [*run.given("model", "task", "data/train"), *run.statistics(), self.annealed],
            GrowthSettings(
                network,
                config.seed,
                config.simplex.model_dump(exclude={"components"}),
                train,
                config.compile,
                run.evaluation(),
            ),
        )

    @property
    def title(self) -> str:
        return f"Simplex {self.annealed.network + 1}"

    def build(
        self, inputs: Inputs, checkpoint: Checkpoint, progress: Report
    ) -> tuple[Barycentric, GrowthResult]:
        config = self.run.config
        state = checkpoint.file("growth")
        assert state is not None
        return grow(
            self.run.setup,
            [inputs[self.annealed.name].point],
            config.simplex,
            seed=seed_for("simplex of a network", config.seed, self.annealed.network),
            checkpoint=state,
            progress=progress,
        )

    def save(self, result: tuple[Barycentric, GrowthResult], folder: Path) -> None:
        shape, growth = result
        without_seconds(growth).save(folder / GROWTH)
        shape.save(folder / SHAPE)

    def load(self, folder: Path) -> Grown:
        return Grown(Simplex.load(folder / SHAPE), GrowthResult.load(folder / GROWTH))

    def view(self) -> Mapping[str, str]:
        name = f"simplex-{self.annealed.network}"
        return {
            SHAPE: f"shapes/{name}.safetensors",
            GROWTH: f"records/growth-{name}.json",
        }

    def passes(self, inputs: Inputs) -> float:
        """Epochs of training: a step on a simplex is as many passes as it takes samples."""
        settings = self.run.config.simplex
        fitted = int((inputs[self.name].growth.vertices > 1).sum())
        return float(fitted * settings.epochs * settings.samples)


def without_seconds(growth: GrowthResult) -> GrowthResult:
    """The record without how long its steps took: two equal runs have equal files."""
    figures = {name: values for name, values in growth.figures.items() if name != "seconds"}
    return replace(growth, figures=figures)


def grow(
    setup: Setup,
    modes: Sequence[Point],
    settings: Growing,
    *,
    connectors: int = 0,
    seed: int,
    checkpoint: Path,
    validate: Callable[[Any], Mapping[str, float]] | None = None,
    progress: Progress = False,
) -> tuple[Barycentric, GrowthResult]:
    """A simplex around a mode, or with connectors the volume between several, trained as the
    networks were but for the learning rate."""
    train = setup.config.train
    total = settings.epochs * -(-setup.length() // train.accumulate)

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=settings.lr, momentum=train.momentum, fused=True)

    options: dict[str, Any] = {
        "epochs": settings.epochs,
        "samples": settings.samples,
        "loader": setup.batches(seed),
        "optimizer": optimizer,
        "schedule": lambda each: DecaySchedule(each, total=total),
        "weight_decay": train.weight_decay,
        "compile": setup.config.compile,
        "accumulate": train.accumulate,
        "clip": train.clip,
        "jitter": settings.jitter,
        "rise": settings.rise,
        "points": settings.points,
        "count": settings.rows,
        "validate": validate,
        "seed": seed,
        "checkpoint": checkpoint,
        "progress": progress,
    }
    if settings.strength is not None:
        options["strength"] = settings.strength
    with warnings.catch_warnings():
        # why a vertex was left out stands in the record, for whoever shows it
        warnings.filterwarnings("ignore", ".* was left out: ")
        shape: Barycentric
        if connectors:
            shape = connect_modes(setup.surface, modes, connectors=connectors, **options)
        else:
            shape = spro(setup.surface, modes[0], vertices=settings.vertices, **options)
    assert isinstance(shape.log, GrowthResult)
    return shape, shape.log
