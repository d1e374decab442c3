"""Artifacts of simplexes that grow around trained networks (SPRO)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.geometry import Barycentric
from lowland.posteriors import Uniform
from lowland.progress import Report
from lowland.records import GrowthResult
from lowland.runs.shape_sections import Growth
from lowland.runs.training import TrainedNetwork, fit_options, fit_values
from lowland.train import connect_modes, spro

if TYPE_CHECKING:
    from lowland.runs.run import Run

SHAPE, GROWTH = "simplex.safetensors", "growth.json"


@dataclass(frozen=True)
class SimplexGrowth:
    """A simplex, and how it grew."""

    simplex: Barycentric
    growth: GrowthResult


class GrownSimplex(Artifact):
    """The simplex around a network, or the volume that joins several.

    Args:
        name: of its file. modes: the networks, weights or trained ones. connectors: vertices that
            several networks share; 0: a simplex around one. align: bring the units of all networks
            into the order of the first. validate: measure test examples inside.
    """

    kind = "simplex"

    def __init__(
        self,
        run: Run,
        name: str,
        modes: Sequence[Artifact],
        growing: Growth,
        *,
        seed: int,
        connectors: int = 0,
        align: bool = False,
        validate: bool = False,
    ) -> None:
        self.run = run
        self.file = name
        self.modes = tuple(modes)
        self.growing = growing
        self.seed = seed
        self.connectors = connectors
        self.align = align
        self.validate = validate
        splits = ["train", *(["test"] if validate else [])]
        super().__init__(
            f"simplex/{name}",
            [*run.evaluated(*splits), *modes],
            run.settings(
                seed=seed,
                connectors=connectors,
                align=align,
                growing=growing.values_of(Growth, but={"components"}),
                train=fit_values(run.config),
            ),
            title=f"grow: {name}",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> SimplexGrowth:
        setup, growing = self.run.setup, self.growing
        points = [inputs[mode.name] for mode in self.modes]
        points = [each.point if isinstance(each, TrainedNetwork) else each for each in points]
        if self.align:
            first = points[0]
            points = [first, *(setup.aligned(first, other) for other in points[1:])]
        options: dict[str, Any] = {
            # as the networks were trained, but for the learning rate
            **fit_options(setup, epochs=growing.epochs, lr=growing.lr, seed=self.seed),
            **growing.model_dump(include={"samples", "jitter", "rise", "points"}),
            "count": growing.examples,
            "validate": self._metrics if self.validate else None,
            "checkpoint": checkpoint.file("growth"),
            "progress": progress,
        }
        if growing.strength is not None:
            options["strength"] = growing.strength
        shape: Barycentric
        with warnings.catch_warnings():
            # why a vertex was left out stands in the record, for whoever shows it
            warnings.filterwarnings("ignore", ".* was left out: ")
            if self.connectors:
                shape = connect_modes(setup.surface, points, connectors=self.connectors, **options)
            else:
                shape = spro(setup.surface, points[0], vertices=growing.vertices, **options)
        assert isinstance(shape.log, GrowthResult)
        return SimplexGrowth(shape, shape.log)

    def save(self, result: SimplexGrowth, folder: Path) -> None:
        without_seconds(result.growth).save(folder / GROWTH)
        result.simplex.save(folder / SHAPE)

    def load(self, folder: Path) -> SimplexGrowth:
        return SimplexGrowth(Barycentric.load(folder / SHAPE), GrowthResult.load(folder / GROWTH))

    def view(self) -> Mapping[str, str]:
        return {
            SHAPE: f"shapes/{self.file}.safetensors",
            GROWTH: f"records/growth-{self.file}.json",
        }

    def passes(self, inputs: Inputs) -> float:
        """Epochs of training: a step on a simplex is as many passes as it takes samples."""
        fitted = int((inputs[self.name].growth.vertices > 1).sum())
        passes: float = fitted * self.growing.epochs * self.growing.samples
        return passes * self.run.relative_epoch

    def _metrics(self, shape: Barycentric) -> dict[str, float]:
        """Metrics of the test examples at random points of the simplex."""
        points: Any = Uniform(shape).points(self.growing.points)
        if all(len(cell) == 1 for cell in shape.cells):
            points = map(shape.anchor, range(len(shape.anchors)))
        table = self.run.setup.surface.evaluate(points, self.run.setup.test)
        metrics = {}
        for metric in ("nll", "error", "rmse"):
            if metric in table.columns:
                values = table.columns[metric]
                metrics[f"test_{metric}_mean"] = float(values.mean())
                metrics[f"test_{metric}_max"] = float(values.max())
        return metrics


def without_seconds(growth: GrowthResult) -> GrowthResult:
    """The record without how long its steps took: two equal runs have equal files."""
    metrics = {name: values for name, values in growth.metrics.items() if name != "seconds"}
    return replace(growth, metrics=metrics)
