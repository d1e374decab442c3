"""The training runs of `lowland run`: annealed, walking, cyclical; each resumes anywhere."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lowland.cli.folder import RunFolder
from lowland.cli.setup import Setup
from lowland.core import Point
from lowland.progress import Progress
from lowland.records import TrainingLog
from lowland.train import sgd
from lowland.trajectory import (
    EMA,
    Collector,
    CyclicalSchedule,
    DecaySchedule,
    Every,
    MidCycle,
    SWASchedule,
    Trajectory,
)


class Modes:
    """Trains what the methods need, once each, into the run folder."""

    def __init__(self, setup: Setup, folder: RunFolder) -> None:
        self.setup = setup
        self.folder = folder
        self.config = setup.config
        train = setup.config.train
        # loaders without a length are not supported here: a budget in epochs needs one
        self.steps = math.ceil(len(setup.batches(0)) / train.accumulate)  # an epoch
        self.total = self.steps * train.epochs

    # -- the three kinds -------------------------------------------------------------------------

    def annealed(self, number: int, progress: Progress) -> None:
        """SGD to the end of its budget with a decaying rate."""

        def schedule(optimizer: Optimizer) -> LRScheduler:
            return DecaySchedule(optimizer, total=self.total)

        self._train(f"sgd-{number}", number, schedule, [], progress)

    def walking(self, number: int, progress: Progress) -> None:
        """SGD that ends at a constant rate; its iterates go to a store, and an EMA runs along."""
        average = self.config.average
        name = f"swa-{number}"

        def schedule(optimizer: Optimizer) -> LRScheduler:
            return SWASchedule(optimizer, total=self.total, swa_lr=average.lr, start=average.start)

        interval = max(1, round(average.every * self.steps))
        ema = EMA(self.setup.layout, decay=average.ema_decay)
        collectors = [
            Collector(
                self._fresh_store(name),
                when=Every(interval, total=self.total, start=average.start),
            ),
            Collector(ema, when=Every(1)),
        ]
        self._train(name, number, schedule, collectors, progress, ema=ema)
        if not self.folder.has_weights(f"ema-{number}"):
            self._save(f"ema-{number}", ema.mean)
        if not self.folder.has_weights(f"average-{number}"):
            self._save(f"average-{number}", self.store(name).swa())

    def cyclical(self, progress: Progress) -> None:
        """Cycles from the first iterate of walk 0 to the end of the same budget."""
        fge = self.config.fge
        start = self.store("swa-0")[0]
        epochs = max(1, round(self.config.train.epochs * (1 - self.config.average.start)))
        cycle = 2 * max(1, round(fge.cycle * self.steps / 2))

        def schedule(optimizer: Optimizer) -> LRScheduler:
            return CyclicalSchedule(optimizer, cycle=cycle, high=fge.high, low=fge.low)

        collectors = [Collector(self._fresh_store("fge-0"), when=MidCycle(cycle))]
        self._train("fge-0", 0, schedule, collectors, progress, start=start, epochs=epochs)

    def store(self, name: str) -> Trajectory:
        """The iterates of a run."""
        return Trajectory.open(self._store_path(name), layout=self.setup.layout)

    def log(self, name: str) -> TrainingLog:
        """The log of a run that is done."""
        return TrainingLog.load(self.folder.record(f"training-{name}.json"))

    # -- what they share -------------------------------------------------------------------------

    def _train(
        self,
        name: str,
        number: int,
        schedule: Callable[[Optimizer], LRScheduler],
        collectors: list[Collector],
        progress: Progress,
        *,
        start: Point | None = None,
        epochs: int | None = None,
        ema: EMA | None = None,
    ) -> None:
        record = self.folder.record(f"training-{name}.json")
        if self.folder.has_weights(name) and record.is_file():
            if callable(progress):
                progress(1, 1)
            return
        config, setup = self.config, self.setup
        model = setup.model(config.seed + number)
        if start is not None:
            setup.layout.load_(model, start.weights)
            model.load_state_dict(start.buffers or {}, strict=False)
        train = config.train

        def optimizer(parameters: Any) -> Optimizer:
            return SGD(
                parameters, lr=train.lr, momentum=train.momentum, weight_decay=train.weight_decay
            )

        self.folder.event("training", run=name)
        log = sgd(
            model,
            setup.task,
            setup.batches(config.seed + number),
            epochs=epochs or train.epochs,
            optimizer=optimizer,
            schedule=schedule,
            collectors=collectors,
            validate=self._validation(ema),
            autocast=setup.autocast,
            channels_last=config.channels_last,
            accumulate=train.accumulate,
            clip=train.clip,
            seed=config.seed + number,
            checkpoint=self._checkpoint(name),
            progress=progress,
        )
        log.save(record)
        self._save(name, setup.layout.flatten(model), buffers=_buffers(model))
        self.folder.event("trained", run=name, seconds=round(log.seconds, 2))

    def _validation(self, ema: EMA | None) -> Callable[[nn.Module], Mapping[str, float]]:
        """NLL on the validation rows after each epoch, of the iterate and of its EMA."""
        surface, rows = self.setup.surface, self.setup.validation

        def validate(model: nn.Module) -> dict[str, float]:
            now = Point(self.setup.layout.flatten(model), _buffers(model))
            found = {"nll": float(surface(now, loader=rows, batchnorm="frozen"))}
            if ema is not None and ema.count:
                found["ema_nll"] = float(surface(ema.mean, loader=rows))
            return found

        return validate

    def _save(
        self, name: str, weights: torch.Tensor, *, buffers: dict[str, torch.Tensor] | None = None
    ) -> None:
        if buffers is None:
            buffers = self.setup.surface.refresh(weights)
        self.folder.save_weights(name, self.setup.layout, Point(weights, buffers))

    def _fresh_store(self, name: str) -> Trajectory:
        """The store of a run: the one to go on with, or a new one where there is no checkpoint."""
        path = self._store_path(name)
        if path.exists() and not self._checkpoint(name).is_file():
            shutil.rmtree(path)  # killed before the first checkpoint: it starts anew
        return self.store(name) if path.exists() else Trajectory.create(path, self.setup.layout)

    def _store_path(self, name: str) -> Any:
        return self.folder.path / "trajectory" / name

    def _checkpoint(self, name: str) -> Any:
        return self.folder.path / "checkpoints" / f"{name}.safetensors"


def _buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
