"""Artifacts of trainings in cycles, whose members make an ensemble, with their series."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from lowland.artifacts import Checkpoint, Inputs
from lowland.averaging.cycles import measures_of, series_of
from lowland.core import Point
from lowland.errors import ConfigError
from lowland.evaluate.table import evaluate
from lowland.progress import Report
from lowland.records import CycleSeries, TrainingLog
from lowland.runs.pictures import Picture
from lowland.runs.training import ScheduleFactory, TrainedNetwork, Training
from lowland.train import LangevinSGD
from lowland.train.rng import fork_global_rng
from lowland.trajectory import Collector, CyclicalCosineSchedule, EndOfCycle

if TYPE_CHECKING:
    from lowland.runs.run import Run
    from lowland.runs.setup import Setup

SERIES = "cycles.json"
_POINTS = 8  # of the series in a cycle, besides members
_EXAMPLES = 1000  # validation examples of the series: an evaluation takes as long as few steps


class TrainedCycles(TrainedNetwork):
    """The files of a training in cycles."""

    @property
    def cycles(self) -> CycleSeries:
        """Learning rate, metrics and distance over the iterations."""
        return CycleSeries.load(self.folder / SERIES)


class CyclesTraining(Training):
    """A training in cycles: `iterates` are its members.

    Attributes:
        cycle: steps of a cycle.
    """

    intermediate = True
    cycle: float

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> TrainingLog:
        self._monitor = CycleMonitor(self.run.setup, self._first_point(inputs), self._first_step)
        log = super().build(inputs, checkpoint, progress)
        self._monitor.series(self, inputs).save(checkpoint.folder / SERIES)
        return log

    def collectors(self, checkpoint: Checkpoint) -> list[Collector]:
        monitor = Collector(self._monitor, when=_Monitored(self))
        monitor.count = self._first_step
        return [*super().collectors(checkpoint), monitor]

    @property
    def _first_step(self) -> int:
        """Steps of the segments that it continues."""
        return self.first_epoch * self.run.budget.epoch

    def _first_point(self, inputs: Inputs) -> Point:
        """The network at its start."""
        if self.start is not None:
            point: Point = inputs[self.start.name].point
            return point
        setup = self.run.setup
        return self.first_weights(inputs) or setup.surface.point(setup.model(self.network))

    def load(self, folder: Path) -> TrainedCycles:
        return TrainedCycles(folder, self.run.setup.layout)

    def view(self) -> Mapping[str, str]:
        name = self.name.partition("/")[2]
        return {**super().view(), SERIES: f"records/cycles-{name}.json"}


class _Monitored:
    """The rule of the series: evenly spaced steps, and the members."""

    def __init__(self, training: CyclesTraining) -> None:
        self.training = training
        self.interval = max(1, round(training.cycle / _POINTS))

    def picks(self, step: int) -> bool:
        iterates = self.training.iterates
        return step % self.interval == 0 or (iterates is not None and iterates.picks(step))


class CycleMonitor:
    """Evaluates a network in training on validation examples, as a target of a `Collector`.

    Args:
        setup: of the run. start: the network from which distances are measured. step: its step.
    """

    def __init__(self, setup: Setup, start: Point, step: int) -> None:
        self.setup, self.start = setup, start
        self.examples = setup.surface.replayable(setup.shuffled("validation"), count=_EXAMPLES)
        self._steps: list[int] = []
        self._distances: list[float] = []
        self._metrics: dict[str, list[float]] = {}
        self._first_step = step

    def append(self, model: nn.Module, *, step: int, metrics: Any = None) -> None:
        """Adds the network after `step` steps to the series."""
        if not self._steps:
            self._add(self.start, self._first_step)
        self._add(self.setup.surface.point(model), step)

    def _add(self, point: Point, step: int) -> None:
        surface = self.setup.surface
        with fork_global_rng(0):  # a user's loader may draw from it
            table = evaluate(surface, point, self.examples, batchnorm="frozen")
        start = self.start.weights.to(point.weights)
        self._steps.append(step)
        self._distances.append(float((point.weights - start).double().norm()))
        for name, values in measures_of(table).items():
            self._metrics.setdefault(name, []).append(float(values[0]))

    def series(self, training: CyclesTraining, inputs: Inputs) -> CycleSeries:
        """The record of a training that has ended."""
        assert training.iterates is not None
        parameter = nn.Parameter(torch.zeros(1))
        schedule = training.schedule(inputs)
        assert schedule is not None
        lrs: Any = schedule(training.optimizer(inputs)([parameter]))
        metrics = {name: torch.tensor(v, dtype=torch.float64) for name, v in self._metrics.items()}
        return series_of(
            self._steps,
            self._distances,
            metrics,
            lrs,
            training.iterates,
            start=self._first_step,
            split="training" if self.setup.held_out else "validation",
        )

    def state_dict(self) -> dict[str, Any]:
        """The series so far."""
        return {
            "steps": self._steps,
            "distances": self._distances,
            "metrics": self._metrics,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Returns to a state."""
        self._steps, self._distances = list(state["steps"]), list(state["distances"])
        self._metrics = {name: list(values) for name, values in state["metrics"].items()}


class SnapshotCycles(CyclesTraining):
    """Cosine cycles from a fresh network to the end of the budget."""

    kind = "snapshot"

    def __init__(self, run: Run, network: int) -> None:
        settings = run.config.snapshot
        self.cycle = _length("snapshot", run, settings.cycles)
        super().__init__(
            run,
            "snapshot",
            network,
            label="snapshot cycles",
            epochs=run.budget.epochs,
            iterates=EndOfCycle(self.cycle),
            snapshot=settings.model_dump(),
        )

    def schedule(self, inputs: Inputs) -> ScheduleFactory:
        return _cosine(self.cycle, self.run.config.snapshot.lr)


class CSGLDCycles(CyclesTraining):
    """Cosine cycles, each of which ends with Langevin noise."""

    kind = "csgld"

    def __init__(self, run: Run, network: int) -> None:
        settings = run.config.csgld
        self.cycle = _length("csgld", run, settings.cycles)
        try:
            rule = EndOfCycle(self.cycle, members=settings.members, explore=settings.explore)
        except ConfigError as error:
            raise ConfigError(f"csgld: {error}") from None
        super().__init__(
            run,
            "csgld",
            network,
            label="cSGLD cycles",
            epochs=run.budget.epochs,
            iterates=rule,
            csgld=settings.model_dump(),
        )

    def schedule(self, inputs: Inputs) -> ScheduleFactory:
        return _cosine(self.cycle, self.run.config.csgld.lr)

    def optimizer(self, inputs: Inputs) -> Callable[[Any], Optimizer]:
        run, settings, train = self.run, self.run.config.csgld, self.run.config.train
        arguments = {"lr": train.lr, "momentum": train.momentum, "fused": True}
        arguments |= {"weight_decay": train.weight_decay, **train.optimizer_args}

        def langevin(params: Any) -> Optimizer:
            return LangevinSGD(
                params,
                **arguments,
                num_examples=_items(run.setup),
                temperature=settings.temperature,
                cycle=self.cycle,
                explore=settings.explore,
                seed=run.setup.seed(self.network),
            )

        return langevin


def cycles_picture(training: CyclesTraining) -> Picture:
    """Learning rate, validation error and distance from the start over the iterations."""

    def draw(trained: TrainedCycles) -> Any:
        series = trained.cycles
        return series.plot() if len(series.step) else None

    return Picture(f"cycles-{training.kind}", [training], draw)


def _cosine(cycle: float, lr: float | None) -> ScheduleFactory:
    return lambda optimizer: CyclicalCosineSchedule(optimizer, cycle=cycle, high=lr)


def _length(section: str, run: Run, cycles: int) -> float:
    """Steps of a cycle: the budget in equal parts."""
    total = run.budget.total
    if total < 2 * cycles:
        raise ConfigError(
            f"{section}.cycles: expected at most {total // 2} cycles of 2 steps or more in the "
            f"{total} steps of {run.budget.epochs} epochs, got {cycles}; make fewer, or train "
            "longer."
        )
    return total / cycles


def _items(setup: Setup) -> int:
    """Items whose mean loss is minimised: training examples, or their tokens."""
    data = setup.surface.data
    if data.items is None:
        for _ in data.batches():
            pass
    items: int | None = data.items
    assert items is not None
    return items
