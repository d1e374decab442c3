"""Artifacts of training: annealed SGD, SGD whose iterates are averaged, and FGE's cycles."""

from __future__ import annotations

import math
import shutil
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.core import ParamLayout, Point
from lowland.core.buffers import load_buffers
from lowland.errors import StoreError
from lowland.progress import Report
from lowland.records import TrainingLog
from lowland.runs.sections import Config, Train
from lowland.runs.settings import EvaluationSettings
from lowland.runs.weights import load_point, save_point
from lowland.train import optimizer_named, schedule_named, sgd
from lowland.trajectory import (
    EMA,
    Collector,
    CyclicalSchedule,
    Every,
    MidCycle,
    Trajectory,
)

if TYPE_CHECKING:
    from lowland.runs.run import Run
    from lowland.runs.setup import Setup

WEIGHTS, BUFFERS = "weights.safetensors", "buffers.safetensors"
ITERATES, EMA_STATE, LOG = "iterates", "ema.safetensors", "log.json"


@dataclass(frozen=True)
class TrainingSettings(EvaluationSettings):
    """What changes the weights of a training run."""

    network: int
    seed: int
    train: Mapping[str, Any]
    precision: Mapping[str, Any]
    average: Mapping[str, Any] = field(default_factory=dict)
    fge: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Budget:
    """A run's budget in optimizer steps.

    Attributes:
        epoch: steps of an epoch. total: of all epochs. iterates: which are averaged. cycle: steps
            of FGE's cycle. cycle_epochs: epochs that its cycles take.
    """

    epoch: int
    total: int
    iterates: Every
    cycle: int
    cycle_epochs: int

    @classmethod
    def of(cls, run: Run) -> Budget:
        """That of a configuration."""
        train, average = run.config.train, run.config.average
        epoch = math.ceil(run.setup.length() / train.accumulate)
        total = epoch * train.epochs
        interval = max(1, round(average.every * epoch))
        return cls(
            epoch,
            total,
            Every(interval, total=total, start=average.start),
            cycle=2 * max(1, round(run.config.fge.cycle * epoch / 2)),
            cycle_epochs=max(1, round(train.epochs * (1 - average.start))),
        )

    def before_averaging(self) -> float:
        """The share of the budget up to the first iterate that is averaged."""
        steps = range(1, self.total + 1)
        first = next((step for step in steps if self.iterates.picks(step)), self.total)
        return first / self.total


class TrainedNetwork:
    """The files of a training run."""

    def __init__(self, folder: Path, layout: ParamLayout) -> None:
        self.folder = folder
        self.layout = layout

    @cached_property
    def point(self) -> Point:
        """The last weights, with their buffers."""
        return load_point(self.folder / WEIGHTS, self.folder / BUFFERS, self.layout)

    @property
    def log(self) -> TrainingLog:
        """The log, a row an epoch."""
        return TrainingLog.load(self.folder / LOG)

    @property
    def iterates(self) -> Trajectory:
        """The iterates that were collected."""
        return Trajectory.open(self.folder / ITERATES, layout=self.layout)

    @property
    def ema(self) -> EMA:
        """The exponential moving average of all iterates."""
        return EMA.load(self.folder / EMA_STATE)


class Training(Artifact):
    """A network trained by SGD."""

    method: ClassVar[str]  # the middle of its name

    def __init__(
        self, run: Run, network: int, *more: Artifact, **sections: Mapping[str, Any]
    ) -> None:
        self.run = run
        self.network = network
        config = run.config
        super().__init__(
            f"train/{self.method}-{network}",
            [
                *run.named_sources("model", "task", "data/train", "data/validation"),
                *run.statistics(),
                *more,
            ],
            TrainingSettings(
                network,
                config.seed,
                config.train.model_dump(),
                {
                    "autocast": config.autocast,
                    "channels_last": config.channels_last,
                    "compile": config.compile,
                },
                evaluation=run.evaluation(),
                **sections,
            ),
        )

    @abstractmethod
    def schedule(self, optimizer: Optimizer) -> LRScheduler:
        """The learning rate over the budget."""

    def epochs(self) -> int:
        """Epochs that it takes."""
        return self.run.config.train.epochs

    def start(self, inputs: Inputs) -> Point | None:
        """The weights that training begins with; None: those of a fresh network."""
        return None

    def collectors(self, checkpoint: Checkpoint) -> list[Collector]:
        """What is collected on the way."""
        return []

    def passes(self, inputs: Inputs) -> float:
        """Epochs of training, for the table of costs."""
        return float(self.epochs())

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> TrainingLog:
        run, setup, train = self.run, self.run.setup, self.run.config.train
        model = setup.model(self.network)
        start = self.start(inputs)
        if start is not None:
            setup.layout.load_(model, start.weights)
            load_buffers(model, start.buffers or {})
        collectors = self.collectors(checkpoint)
        emas = [t for c in collectors for t in c.targets if isinstance(t, EMA)]

        log = sgd(
            _compiled(model) if run.config.compile else model,
            setup.task,
            setup.batches(setup.seed(self.network)),
            epochs=self.epochs(),
            optimizer=optimizer_of(train),
            schedule=self.schedule,
            collectors=collectors,
            validate=_validation(run, emas[0] if emas else None),
            autocast=setup.autocast,
            channels_last=run.config.channels_last,
            accumulate=train.accumulate,
            clip=train.clip,
            seed=setup.seed(self.network),
            checkpoint=checkpoint.file("training.safetensors"),
            progress=progress,
        )
        for collector in collectors:
            for target in collector.targets:
                if isinstance(target, Trajectory):
                    _require_all(target, collector)
        folder = checkpoint.folder
        point = setup.surface.point(model)
        save_point(folder / WEIGHTS, folder / BUFFERS, model, setup.layout, point)
        for ema in emas:
            ema.save(folder / EMA_STATE)
        return log

    def save(self, result: TrainingLog, folder: Path) -> None:
        log_without_seconds(result).save(folder / LOG)

    def load(self, folder: Path) -> TrainedNetwork:
        return TrainedNetwork(folder, self.run.setup.layout)

    def view(self) -> Mapping[str, str]:
        name = self.name.partition("/")[2]
        return {
            WEIGHTS: f"weights/{name}.safetensors",
            BUFFERS: f"weights/buffers/{name}.safetensors",
            LOG: f"records/training-{name}.json",
            ITERATES: f"trajectory/{name}",
        }


class AnnealedSGD(Training):
    """SGD to the end of its budget with a learning rate that decays."""

    kind = "sgd"
    method = "sgd"

    def schedule(self, optimizer: Optimizer) -> LRScheduler:
        return schedule_of(self.run.config.train, self.run.budget.total)(optimizer)

    @property
    def title(self) -> str:
        return f"SGD {self.network + 1}"


class AveragedTrajectory(Training):
    """SGD that ends at a constant learning rate: iterates are stored, and an EMA is updated."""

    kind = "swa"
    intermediate = True  # its iterates take room, and averages are artifacts of their own
    method = "swa"

    def __init__(self, run: Run, network: int) -> None:
        average = run.config.average
        keys = {"lr", "start", "every", "ema_decay", "ema_warmup"}
        super().__init__(run, network, average=average.model_dump(include=keys))

    def schedule(self, optimizer: Optimizer) -> LRScheduler:
        average, warmup = self.run.config.average, self.run.config.train.warmup
        settings = {"swa_lr": average.lr, "start": average.start}
        total = self.run.budget.total
        return schedule_named("SWASchedule", total=total, warmup=warmup, **settings)(optimizer)

    def collectors(self, checkpoint: Checkpoint) -> list[Collector]:
        average, layout = self.run.config.average, self.run.setup.layout
        ema = EMA(layout, decay=average.ema_decay, warmup=average.ema_warmup)
        store = _store(checkpoint, layout)
        return [Collector(store, when=self.run.budget.iterates), Collector(ema, when=Every(1))]

    @property
    def title(self) -> str:
        return f"SWA trajectory {self.network + 1}"


class FGECycles(Training):
    """FGE's cycles, from the first averaged iterate of a trajectory to the end of its budget."""

    kind = "fge"
    intermediate = True
    method = "fge"

    def __init__(self, run: Run, network: int) -> None:
        self.trajectory = run.averaged(network)
        super().__init__(run, network, self.trajectory, fge=run.config.fge.model_dump())

    def schedule(self, optimizer: Optimizer) -> LRScheduler:
        fge, cycle = self.run.config.fge, self.run.budget.cycle
        return CyclicalSchedule(optimizer, cycle=cycle, high=fge.high, low=fge.low)

    def epochs(self) -> int:
        return self.run.budget.cycle_epochs

    def start(self, inputs: Inputs) -> Point | None:
        first: Point = inputs[self.trajectory.name].iterates[0]
        return first

    def collectors(self, checkpoint: Checkpoint) -> list[Collector]:
        store = _store(checkpoint, self.run.setup.layout)
        return [Collector(store, when=MidCycle(self.run.budget.cycle))]

    @property
    def title(self) -> str:
        return "FGE cycles"


def log_without_seconds(log: TrainingLog) -> TrainingLog:
    """The log without how long its epochs took: two equal runs have equal files."""
    columns = {name: values for name, values in log.columns.items() if name != "seconds"}
    stored: TrainingLog = replace(log, columns=columns)
    return stored


def optimizer_of(train: Train) -> Callable[[Any], Optimizer]:
    """The optimizer of a configuration, as a function of parameters."""
    arguments = {"lr": train.lr, "weight_decay": train.weight_decay}
    if train.optimizer.lower() == "sgd":
        # one pass over weights, gradients and momenta: 2.6x on a CPU
        arguments |= {"momentum": train.momentum, "fused": True}
    return optimizer_named(train.optimizer, **{**arguments, **train.optimizer_args})


def schedule_of(train: Train, total: int) -> Callable[[Optimizer], LRScheduler]:
    """The schedule of annealed networks, as a function of their optimizer."""
    name = train.schedule or "DecaySchedule"
    return schedule_named(name, total=total, warmup=train.warmup, **train.schedule_args)


def fit_options(setup: Setup, *, epochs: int, lr: float, seed: int) -> dict[str, Any]:
    """How shapes are fitted, as arguments of `fit` and `spro`: on the batches of the networks, by
    SGD with a learning rate that decays. Weight decay acts on the points of the shape."""
    config, train = setup.config, setup.config.train
    total = epochs * math.ceil(setup.length() / train.accumulate)
    own = Train(lr=lr, momentum=train.momentum, weight_decay=0)
    return {
        "epochs": epochs,
        "loader": setup.batches(seed),
        "optimizer": optimizer_of(own),
        "schedule": schedule_of(own, total),
        "weight_decay": train.weight_decay,
        "compile": config.compile,
        "accumulate": train.accumulate,
        "clip": train.clip,
        "seed": seed,
    }


def fit_values(config: Config) -> dict[str, Any]:
    """What of a configuration changes how shapes are fitted."""
    train = config.train.model_dump(exclude={"epochs", "lr"})
    return train | {"compile": config.compile}


def _store(checkpoint: Checkpoint, layout: ParamLayout) -> Trajectory:
    """The store of a training run: the one to go on with, or a new one."""
    path, state = checkpoint.folder / ITERATES, checkpoint.file("training.safetensors")
    assert state is not None
    if not state.is_file():
        shutil.rmtree(path, ignore_errors=True)  # stopped before the first checkpoint
        return Trajectory.create(path, layout)
    # what lies behind its end is trained again
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* has no line for ")
        return Trajectory.open(path, layout=layout)


def _require_all(store: Trajectory, collector: Collector) -> None:
    expected = sum(map(collector.when.picks, range(1, collector.count + 1)))
    if len(store) != expected:
        raise StoreError(
            f"{store.path} has {len(store)} of {expected} iterates: files of it were lost; delete "
            f"{store.path.parent} to train it again."
        )


def _compiled(model: nn.Module) -> nn.Module:
    # two fixed shapes, of a batch and of the last one of an epoch: code for any shape is slower
    return torch.compile(model, dynamic=False)  # type: ignore[return-value]


def _validation(run: Run, ema: EMA | None) -> Callable[[nn.Module], Mapping[str, float]]:
    """NLL on the validation examples after each epoch, of the iterate and of its EMA."""
    surface, examples = run.setup.surface, run.setup.validation

    def validate(model: nn.Module) -> dict[str, float]:
        point = surface.point(model)
        metrics = {"nll": float(surface(point, loader=examples, batchnorm="frozen"))}
        if ema is not None and ema.count:
            metrics["ema_nll"] = float(surface(ema.point, loader=examples))
        return metrics

    return validate
