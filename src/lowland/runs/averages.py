"""Artifacts of averages: SWA and EMA of a trajectory, with statistics of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.core import Point
from lowland.progress import Report
from lowland.runs.training import BUFFERS, WEIGHTS
from lowland.runs.weights import load_point, save_point
from lowland.trajectory import SWA

if TYPE_CHECKING:
    from lowland.runs.run import Run


class Average(Artifact):
    """The SWA or EMA weights of a trajectory, ready to be served."""

    kind = "average"

    def __init__(
        self, run: Run, network: int, of: Literal["swa", "ema"], budget: float = 1.0
    ) -> None:
        self.run = run
        self.network = network
        self.of = of
        self.segments = run.averaged_segments(network, budget)
        beyond = "" if budget == 1 else f"@{budget:g}"
        super().__init__(
            f"weights/{'average' if of == 'swa' else of}{beyond}-{network}",
            [*run.evaluated(), *self.segments],
            run.settings(of=of),
            title=f"{of.upper()} {network + 1}",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Point:
        trained = [inputs[segment.name] for segment in self.segments]
        surface, average = self.run.setup.surface, SWA(self.run.setup.layout)
        if self.of == "swa":
            for each in trained:
                each.iterates.into(average)
        mean = trained[-1].ema.point if self.of == "ema" else average.point
        model = self.run.setup.model(self.network)  # for what is frozen in it
        buffers = (mean.buffers or {}) | surface.changed_frozen_parameters(model)
        return surface.estimated(Point(mean.weights, buffers))

    def save(self, result: Point, folder: Path) -> None:
        setup = self.run.setup
        model = setup.model(self.network)
        save_point(folder / WEIGHTS, folder / BUFFERS, model, setup.layout, result)

    def load(self, folder: Path) -> Point:
        return load_point(folder / WEIGHTS, folder / BUFFERS, self.run.setup.layout)

    def view(self) -> Mapping[str, str]:
        name = self.name.partition("/")[2]
        return {
            WEIGHTS: f"weights/{name}.safetensors",
            BUFFERS: f"weights/buffers/{name}.safetensors",
        }
