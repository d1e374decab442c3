"""Artifacts of training: what every segment of it shares. See `segments` for the kinds."""

from __future__ import annotations

import math
import shutil
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
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
from lowland.runs.sections import Config
from lowland.runs.training_sections import Train
from lowland.runs.weights import load_point, save_point
from lowland.train import TrainingState, optimizer_named, schedule_named, sgd
from lowland.trajectory import EMA, Collector, EndOfCycle, Every, MidCycle, Trajectory

if TYPE_CHECKING:
    from lowland.runs.run import Run
    from lowland.runs.setup import Setup

WEIGHTS, BUFFERS = "weights.safetensors", "buffers.safetensors"
ITERATES, EMA_STATE, LOG = "iterates", "ema.safetensors", "log.json"
STATE = "state.safetensors"
_CHECKPOINT = "training.safetensors"

ScheduleFactory = Callable[[Optimizer], LRScheduler]


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
    def diverged(self) -> bool:
        """Whether a short trial ended with a loss that is not finite: it has no iterates then."""
        return not (self.folder / ITERATES).is_dir()

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

    @property
    def state(self) -> TrainingState:
        """The state from which another training continues."""
        return TrainingState.load(self.folder / STATE)


class Training(Artifact):
    """A segment of the training of a network by SGD, from its first weights or from the end of
    another segment on.

    Args:
        name: without the number of the network. network: its number. more: other inputs.
        label: of its progress bar.
        start: the segment that it continues. epochs: its own.
        iterates: the steps whose iterates are stored, counted from the network's first step.
        own: settings that change its weights, besides those of all trainings.

    Attributes:
        publishes_state: whether others may continue it. keeps_schedule: whether the schedule of
            the segment that it continues goes on. choices: what was chosen for its optimizer,
            inputs of all that continue it.
    """

    publishes_state: ClassVar[bool] = False
    keeps_schedule: bool = True
    choices: tuple[Artifact, ...] = ()

    def __init__(
        self,
        run: Run,
        name: str,
        network: int,
        *more: Artifact,
        label: str,
        epochs: int,
        start: Training | None = None,
        iterates: Every | MidCycle | EndOfCycle | None = None,
        **own: Any,
    ) -> None:
        self.run = run
        self.network = network
        self.start = start
        self.epochs = epochs
        self.iterates = iterates
        config = run.config
        super().__init__(
            run.artifact_name(f"train/{name}-{network}"),
            [*run.evaluated("train", "validation"), *([start] if start else []), *more],
            run.settings(
                network=network,
                seed=config.seed,
                train=config.train.model_dump(),
                precision={
                    "autocast": config.autocast,
                    "channels_last": config.channels_last,
                    "compile": config.compile,
                },
                epochs=epochs,
                iterates=dict(vars(iterates)) if iterates else None,
                **own,
            ),
            title=f"{label}, all examples" if run.retrains else label,
        )

    @abstractmethod
    def schedule(self, inputs: Inputs) -> ScheduleFactory | None:
        """Makes the schedule of the optimizer; None: its learning rate is constant."""

    def optimizer(self, inputs: Inputs) -> Callable[[Any], Optimizer]:
        """Makes the optimizer."""
        return optimizer_of(self.run.config.train)

    def batches(self) -> Any:
        """The batches of an epoch, in an order of the network's own."""
        return self.run.setup.batches(self.run.setup.seed(self.network))

    @property
    def first_epoch(self) -> int:
        """Epochs before it, of the segments that it continues."""
        return self.start.last_epoch if self.start else 0

    @property
    def last_epoch(self) -> int:
        """Epochs at its end."""
        return self.first_epoch + self.epochs

    @property
    def stored(self) -> int:
        """How many iterates it stores."""
        epoch = self.run.budget.epoch
        count = self.iterates.count if self.iterates else lambda steps: 0
        return count(self.last_epoch * epoch) - count(self.first_epoch * epoch)

    def segments(self) -> list[Training]:
        """All that it continues, from the first, and itself."""
        return [*(self.start.segments() if self.start else []), self]

    def first_weights(self, inputs: Inputs) -> Point | None:
        """The weights that training begins with; None: those of a fresh network, or of `start`."""
        return None

    def collectors(self, checkpoint: Checkpoint) -> list[Collector]:
        """What is collected on the way."""
        if self.iterates is None:
            return []
        collector = Collector(_store(checkpoint, self.run.setup.layout), when=self.iterates)
        collector.count = self.first_epoch * self.run.budget.epoch
        return [collector]

    def passes(self, inputs: Inputs) -> float:
        """Its own epochs of training, for the table of costs."""
        return self.epochs * self.run.config.train.passes * self.run.relative_epoch

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> TrainingLog:
        run, setup, train = self.run, self.run.setup, self.run.config.train
        model = setup.model(self.network)
        weights = self.first_weights(inputs)
        if weights is not None:
            setup.layout.load_(model, weights.weights)
            load_buffers(model, weights.buffers or {})
        collectors = self.collectors(checkpoint)
        emas = [t for c in collectors for t in c.targets if isinstance(t, EMA)]

        log = sgd(
            _compiled(model) if run.config.compile else model,
            setup.task,
            self.batches(),
            epochs=self.epochs,
            start=self._start(inputs),
            optimizer=self.optimizer(inputs),
            schedule=self.schedule(inputs),
            collectors=collectors,
            # examples that are trained on validate nothing
            validate=None if run.retrains else _validation(run, emas[0] if emas else None),
            autocast=setup.autocast,
            channels_last=run.config.channels_last,
            accumulate=train.accumulate,
            clip=train.clip,
            sam=train.sam,
            sam_adaptive=train.sam_adaptive,
            seed=setup.seed(self.network),
            checkpoint=checkpoint.file(_CHECKPOINT),
            progress=progress,
        )
        for collector in collectors:
            for target in collector.targets:
                if isinstance(target, Trajectory):
                    self._require_all(target, collector)
        folder = checkpoint.folder
        point = setup.surface.point(model)
        save_point(folder / WEIGHTS, folder / BUFFERS, model, setup.layout, point)
        for ema in emas:
            ema.save(folder / EMA_STATE)
        if self.publishes_state:
            TrainingState.load(str(checkpoint.file(_CHECKPOINT))).save(folder / STATE)
        return log

    def _start(self, inputs: Inputs) -> TrainingState | None:
        """The state that it continues."""
        if self.start is None:
            return None
        state: TrainingState = inputs[self.start.name].state
        return state if self.keeps_schedule else state.without_schedule()

    def _require_all(self, store: Trajectory, collector: Collector) -> None:
        first = self.first_epoch * self.run.budget.epoch
        expected = sum(map(collector.when.picks, range(first + 1, collector.count + 1)))
        if len(store) != expected:
            raise StoreError(
                f"{store.path} has {len(store)} of {expected} iterates: files of it were lost; "
                f"delete {store.path.parent} to train it again."
            )

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


def log_without_seconds(log: TrainingLog) -> TrainingLog:
    """The log without how long its epochs took: two equal runs have equal files."""
    columns = {name: values for name, values in log.columns.items() if name != "seconds"}
    stored: TrainingLog = replace(log, columns=columns)
    return stored


def optimizer_of(train: Train, lr: float | None = None) -> Callable[[Any], Optimizer]:
    """The optimizer of a configuration, as a function of parameters, at its learning rate or
    another one."""
    arguments = {"lr": train.lr if lr is None else lr, "weight_decay": train.weight_decay}
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
    plain SGD with a learning rate that decays. Weight decay acts on the points of the shape."""
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
    train = config.train.model_dump(exclude={"epochs", "lr", "sam", "sam_adaptive"})
    return train | {"compile": config.compile}


def _store(checkpoint: Checkpoint, layout: ParamLayout) -> Trajectory:
    """The store of a training run: the one to go on with, or a new one."""
    path, state = checkpoint.folder / ITERATES, checkpoint.file(_CHECKPOINT)
    assert state is not None
    if not state.is_file():
        shutil.rmtree(path, ignore_errors=True)  # stopped before the first checkpoint
        return Trajectory.create(path, layout)
    # what lies behind its end is trained again
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* has no line for ")
        return Trajectory.open(path, layout=layout)


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
