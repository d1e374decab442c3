"""Artifacts of the loss on the triangle of a simplex's first three vertices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowland import plots
from lowland.artifacts import Checkpoint, Inputs
from lowland.geometry import Simplex
from lowland.landscape import ternary
from lowland.progress import Report
from lowland.records import TernaryResult
from lowland.runs.growth import GrownSimplex
from lowland.runs.pictures import Picture
from lowland.runs.records import RecordArtifact

if TYPE_CHECKING:
    from lowland.runs.run import Run

_SIDE = 15  # points a side of the triangle
_SHOWN = 2000  # training examples of it


class Triangle(RecordArtifact):
    """The losses on a triangle."""

    kind = "triangle"
    record = TernaryResult

    def __init__(self, run: Run, simplex: GrownSimplex) -> None:
        self.run = run
        self.simplex = simplex
        super().__init__(
            "scan/triangle",
            [*run.evaluated(), simplex],
            run.settings(side=_SIDE, examples=_SHOWN),
            file="triangle.json",
            title="triangle",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> TernaryResult:
        shape = inputs[self.simplex.name].simplex
        vertices = shape.cells[0][:3]
        return ternary(
            Simplex([shape.anchor(i) for i in vertices]),
            self.run.setup.surface,
            resolution=_SIDE,
            count=_SHOWN,
            names=[f"v{i}" for i in vertices],
            split="training",
            progress=progress,
        )


def triangle_picture(run: Run, simplex: GrownSimplex) -> Picture:
    """The surface over the triangle."""
    return Picture("triangle", [Triangle(run, simplex)], lambda record: plots.ternary(record))
