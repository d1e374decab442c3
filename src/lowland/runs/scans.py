"""Artifacts of scans: the loss surface on a plane or along a line, and its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from lowland import plots
from lowland.artifacts import Artifact, Checkpoint, Inputs, Source
from lowland.core import Point
from lowland.geometry import Shape
from lowland.landscape import forecast, scan
from lowland.progress import Report
from lowland.records import SurfaceResult
from lowland.runs.keys import Section, key
from lowland.runs.records import RecordArtifact
from lowland.runs.sources import hash_of
from lowland.trajectory import Trajectory

if TYPE_CHECKING:
    from lowland.runs.run import Run


class Grid(Section):
    """Where a surface is evaluated, and on what."""

    resolution: int = key(41, "points along each axis", ge=2)
    margin: float = key(0.2, "margin around the weights, as a share of their extent", ge=0)
    refine: float | None = key(
        0.02,
        "largest error of the picture where it is interpolated, as a share of the colour scale; 0 "
        "evaluates every point",
        ge=0,
        le=0.5,
    )
    examples: int = key(2000, "number of the examples", ge=2)
    split: Literal["train", "test"] = key("train", "examples of the losses")

    @field_validator("refine")
    @classmethod
    def _none_at_zero(cls, refine: float | None) -> float | None:
        return refine or None


class SurfaceScan(RecordArtifact):
    """The losses on a shape.

    Args:
        name: of the plane. shape: to look at. overlays: `marks`, `curves` and `paths`, as for
            `lowland.scan`.
    """

    kind = "scan"
    record = SurfaceResult

    def __init__(
        self, run: Run, name: str, shape: Shape, overlays: Mapping[str, Any], grid: Grid
    ) -> None:
        self.run = run
        self.grid = grid
        self.shape = Source("shape", shape, {"hash": hash_of([shape.anchors, _plain(overlays)])})
        self.overlays = overlays
        splits = ["test"] if grid.split == "test" else []
        super().__init__(
            f"scan/{name}/{grid.split}",
            [*run.evaluated(*splits), self.shape],
            run.settings(grid=grid.values_of(Grid)),
            file="surface.npz",
            title=f"scan: {name}/{grid.split}",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> SurfaceResult:
        result = scan(
            self.shape.value,
            self.run.setup.surface,
            **self._arguments(),
            store=checkpoint.file("scan.journal"),
            progress=progress,
        )
        split = "training" if self.grid.split == "train" else self.grid.split
        return replace(result, about=result.about | {"split": split})

    def forecast(self) -> str:
        """How long it will take, in words."""
        return str(forecast(self.shape.value, self.run.setup.surface, **self._arguments()))

    def _arguments(self) -> dict[str, Any]:
        grid = self.grid
        return {
            "resolution": grid.resolution,
            "margin": grid.margin,
            "refine": grid.refine,
            "count": grid.examples,
            "loader": self.run.setup.test if grid.split == "test" else None,
            **self.overlays,
        }


class ScanPictures(Artifact):
    """A picture of each metric of a scan, and the loss in three dimensions."""

    kind = "pictures"
    quick = True

    def __init__(self, surface: SurfaceScan) -> None:
        self.surface = surface
        super().__init__(f"pictures/{surface.name}", [surface])

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> SurfaceResult:
        result: SurfaceResult = inputs[self.surface.name]
        return result

    def save(self, result: SurfaceResult, folder: Path) -> None:
        for metric in result.metrics:
            plots.save(plots.surface(result, metric=metric), folder / "pictures" / f"{metric}.png")
        if result.y is not None:
            plots.save(plots.surface3d(result), folder / "pictures" / "loss-3d.png")

    def load(self, folder: Path) -> list[Path]:
        return sorted((folder / "pictures").iterdir())

    def view(self) -> Mapping[str, str]:
        return {"pictures": "pictures"}


def _plain(value: Any) -> Any:
    """What distinguishes overlays: weights, anchors, and the iterates' number and mean."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, Point):
        return value.weights
    if isinstance(value, Shape):
        return value.anchors
    if isinstance(value, Trajectory):
        return [len(value), value.swa()]
    return value
