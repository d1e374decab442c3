"""Artifacts of averages: SWA and EMA of a trajectory, with statistics of their own."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.averaging.weighted_mean import weighted_mean
from lowland.core import Point
from lowland.progress import Report
from lowland.runs.average_choice import SCHEDULE, SGD, AverageChoice, average_name
from lowland.runs.training import BUFFERS, WEIGHTS
from lowland.runs.weights import load_point, save_point
from lowland.trajectory import SWA

if TYPE_CHECKING:
    from lowland.runs.run import Run


class Average(Artifact):
    """The SWA or EMA weights of a trajectory, ready to be served.

    Args:
        choice: what is averaged; None: all stored iterates by SWA, all steps by EMA.
    """

    kind = "average"
    version = 2

    def __init__(
        self,
        run: Run,
        network: int,
        of: str,
        budget: float = 1.0,
        choice: AverageChoice | None = None,
    ) -> None:
        self.run = run
        self.network = network
        self.of = of
        self.choice = choice
        self.trajectory = run.averaged(network, budget)
        self.segments = run.averaged_segments(network, budget)
        self.annealed = run.annealed(network) if choice and choice.annealed else None
        others = [each for each in (choice, self.annealed) if each]
        super().__init__(
            run.artifact_name(f"weights/{average_name(of, network, budget)}"),
            [*run.evaluated(), self.trajectory, *self.segments, *others],
            run.settings(of=of),
            title=f"{of.upper()} {network + 1}",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Point:
        winner = inputs[self.choice.name] if self.choice else None
        if winner and winner.selection.best == SGD:
            assert self.annealed is not None
            last: Point = inputs[self.annealed.name].point
            return last
        if winner and winner.iterate_weights:
            trained = self.segments
            if self.annealed is not None and winner.branch == SCHEDULE:
                trained = [self.annealed]
            stores = [inputs[each.name].iterates for each in trained]
            weights = winner.weights_of(sum(map(len, stores)))
            return self.with_statistics(weighted_mean(chain(*stores), weights))
        if self.of == "ema":
            return self.with_statistics(inputs[self.trajectory.name].ema.point)
        average = SWA(self.run.setup.layout)
        for segment in self.segments:
            inputs[segment.name].iterates.into(average)
        return self.with_statistics(average.point)

    def with_statistics(self, mean: Point) -> Point:
        """A mean of iterates with what is frozen in its network, and statistics of its own."""
        surface = self.run.setup.surface
        model = self.run.setup.model(self.network)  # for what is frozen in it
        buffers = (mean.buffers or {}) | surface.state.changed_frozen_parameters(model)
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
