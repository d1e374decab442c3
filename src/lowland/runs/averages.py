"""Artifacts of averages: SWA and EMA of a trajectory, with statistics of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.averaging import tune_average
from lowland.core import Point
from lowland.progress import Report
from lowland.runs.training import BUFFERS, WEIGHTS
from lowland.runs.weights import load_point, save_point
from lowland.trajectory import SWA

if TYPE_CHECKING:
    from lowland.runs.run import Run

SELECTION = "selection.json"
# candidates: SGD's last weights, and iterates of its schedule or of the tuned trajectory
SGD, SCHEDULE, CONSTANT = "SGD", "SGD's schedule", "constant learning rate"


class Average(Artifact):
    """The SWA or EMA weights of a trajectory, ready to be served."""

    kind = "average"

    def __init__(
        self,
        run: Run,
        network: int,
        of: Literal["swa", "ema"],
        budget: float = 1.0,
        more: Sequence[Artifact] = (),
    ) -> None:
        self.run = run
        self.network = network
        self.of = of
        self.segments = run.averaged_segments(network, budget)
        beyond = "" if budget == 1 else f"@{budget:g}"
        super().__init__(
            f"weights/{'average' if of == 'swa' else of}{beyond}-{network}",
            [*run.evaluated(), *self.segments, *more],
            run.settings(of=of),
            title=f"{of.upper()} {network + 1}",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Point:
        trained = [inputs[segment.name] for segment in self.segments]
        if self.of == "ema":
            return self.with_statistics(trained[-1].ema.point)
        average = SWA(self.run.setup.layout)
        for each in trained:
            each.iterates.into(average)
        return self.with_statistics(average.point)

    def with_statistics(self, mean: Point) -> Point:
        """A mean of iterates with what is frozen in its network, and statistics of its own."""
        surface = self.run.setup.surface
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


class TunedAverage(Average):
    """The average of iterates with the lowest NLL on validation examples, or SGD's last weights.

    Candidates are tails of the tuned trajectory and of SGD's own schedule; SGD's last weights stay
    where none is better by more than one paired standard error.
    """

    kind = "tuned-average"

    def __init__(self, run: Run, network: int, budget: float = 1.0) -> None:
        self.annealed = run.annealed(network)
        more = [*run.named_sources("data/validation"), self.annealed]
        super().__init__(run, network, "swa", budget, more)

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Point:
        annealed = inputs[self.annealed.name]
        stores = [inputs[segment.name].iterates for segment in self.segments]
        tuned = tune_average(
            self.run.setup.surface,
            {
                SCHEDULE: annealed.iterates,
                CONSTANT: stores[0] if len(stores) == 1 else list(chain(*stores)),
            },
            self.run.setup.validation,
            default=SGD,
            candidates={SGD: annealed.point},
            decays=(),
            learned=False,
        )
        tuned.selection.save(checkpoint.folder / SELECTION)
        if tuned.selection.best == SGD:
            last: Point = annealed.point
            return last
        return self.with_statistics(tuned.point)

    def view(self) -> Mapping[str, str]:
        return {**super().view(), SELECTION: f"records/{self.name.partition('/')[2]}.json"}
