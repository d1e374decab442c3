"""The training runs of `lowland run`: annealed, walking, cyclical; each resumes anywhere."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lowland.cli import subspaces
from lowland.cli.folder import RunFolder
from lowland.cli.setup import Setup
from lowland.cli.simplexes import grown, kept
from lowland.core import Point
from lowland.core.buffers import load_buffers
from lowland.core.seeds import seed_for
from lowland.errors import StoreError
from lowland.geometry import Simplex, Subspace
from lowland.progress import Progress
from lowland.records import Chain, GrowthResult, SurfaceResult, TrainingLog
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
from lowland.trajectory.collect import When
from lowland.trajectory.journal import JOURNAL


class Modes:
    """Trains what the methods need, once each, into the run folder."""

    def __init__(self, setup: Setup, folder: RunFolder) -> None:
        self.setup = setup
        self.folder = folder
        self.config = setup.config
        train = setup.config.train
        self.steps = math.ceil(setup.length() / train.accumulate)  # an epoch
        self.total = self.steps * train.epochs
        average, fge = setup.config.average, setup.config.fge
        interval = max(1, round(average.every * self.steps))
        self.walk_picks = Every(interval, total=self.total, start=average.start)
        self.cycle = 2 * max(1, round(fge.cycle * self.steps / 2))
        self.cycle_epochs = max(1, round(train.epochs * (1 - average.start)))

    def expected(self, kind: str) -> int:
        """How many iterates a walk ("swa") or the cycles ("fge") will store."""
        if kind == "swa":
            return self.walk_picks.count(self.total)
        return MidCycle(self.cycle).count(self.steps * self.cycle_epochs)

    # -- the kinds -------------------------------------------------------------------------

    def annealed(self, number: int, progress: Progress) -> None:
        """SGD to the end of its budget with a decaying rate."""
        if self._done(f"sgd-{number}", progress=progress):
            return

        def schedule(optimizer: Optimizer) -> LRScheduler:
            return DecaySchedule(optimizer, total=self.total)

        self._train(f"sgd-{number}", number, schedule, [], progress)

    def walking(self, number: int, progress: Progress) -> None:
        """SGD that ends at a constant rate; its iterates go to a store, and an EMA runs along."""
        average = self.config.average
        name, averages = f"swa-{number}", [f"ema-{number}"]
        if self.expected("swa"):  # the EMA alone needs no iterate
            averages.append(f"average-{number}")
        if self._done(name, *averages, progress=progress):
            return

        def schedule(optimizer: Optimizer) -> LRScheduler:
            return SWASchedule(optimizer, total=self.total, swa_lr=average.lr, start=average.start)

        ema = EMA(self.setup.layout, decay=average.ema_decay, warmup=average.ema_warmup)
        collectors = [
            Collector(self._fresh_store(name), when=self.walk_picks),
            Collector(ema, when=Every(1)),
        ]
        self._train(name, number, schedule, collectors, progress, ema=ema)
        model = self.setup.model(number)  # for what is frozen in this network
        points = [ema.point, *(self.store(name).average() for _ in averages[1:])]
        for one, point in zip(averages, points, strict=True):
            buffers = (point.buffers or {}) | self.setup.surface.frozen_of(model)
            point = self.setup.surface.estimated(Point(point.weights, buffers))
            self._save(one, model, point)

    def cyclical(self, progress: Progress) -> None:
        """Cycles from the first iterate of walk 0 to the end of the same budget."""
        if self._done("fge-0", progress=progress):
            return
        fge, start = self.config.fge, self.store("swa-0")[0]

        def schedule(optimizer: Optimizer) -> LRScheduler:
            return CyclicalSchedule(optimizer, cycle=self.cycle, high=fge.high, low=fge.low)

        collectors = [Collector(self._fresh_store("fge-0"), when=MidCycle(self.cycle))]
        epochs = self.cycle_epochs
        self._train("fge-0", 0, schedule, collectors, progress, start=start, epochs=epochs)

    def simplex(self, number: int, progress: Progress) -> None:
        """The simplex around an annealed network."""
        name, record = f"simplex-{number}", self._growth(number)
        with suppress(StoreError):  # not there yet, or damaged
            Simplex.load(self._shape(number)), GrowthResult.load(record)
            if callable(progress):
                progress(1, 1)
            return
        self.folder.event("training", run=name)
        shape, growth = grown(
            self.setup,
            [self.folder.load_weights(f"sgd-{number}", self.setup.layout)],
            self.config.simplex,
            seed=seed_for("simplex of a network", self.config.seed, number),
            checkpoint=self.folder.path / "checkpoints" / name,
            progress=progress,
        )
        kept(shape, growth, self._shape(number), record)
        seconds = float(growth.figures["seconds"].nansum())
        self.folder.event("trained", run=name, seconds=round(seconds, 2))

    def subspace(self, progress: Progress) -> None:
        """The posterior in a subspace of walk 0."""
        place, record = self._subspace()
        if subspaces.found(place, record) is not None:
            if callable(progress):
                progress(1, 1)
            return
        asked = self.config.subspace
        self.folder.event("sampling", run="subspace")
        store = self.store("swa-0")
        seed = self.config.seed
        sub = subspaces.spanned(self.setup, asked, place, store.average(), walk=store, seed=seed)
        chain = subspaces.sampled(
            self.setup,
            sub,
            asked,
            seed=seed,
            checkpoint=self.folder.path / "checkpoints" / "subspace.safetensors",
            progress=progress,
        )
        chain.save(record)
        self.folder.event("sampled", run="subspace", evaluations=chain.evaluations)

    def plane(self, progress: Progress) -> SurfaceResult | None:
        """The log posterior over the first two coordinates, where there are two."""
        chain, asked = self.chain(), self.config.subspace
        if chain.coords.shape[-1] < 2:
            return None
        walk = self.store("swa-0") if asked.kind == "pca" else None
        file = self.folder.record("posterior-plane.npz")
        journal = self.folder.path / "checkpoints" / "posterior-plane.journal"
        return subspaces.plane(
            self.setup, chain, asked, file, journal=journal, walk=walk, progress=progress
        )

    def chain(self) -> Chain:
        """The chains that are done, in their subspace."""
        place, record = self._subspace()
        return Chain.load(record).within(Subspace.load(place))

    def _subspace(self) -> tuple[Path, Path]:
        return self.folder.path / "shapes" / "subspace.safetensors", self.folder.record("chain.npz")

    def shape(self, number: int) -> Simplex:
        """A simplex that is done."""
        return Simplex.load(self._shape(number))

    def growth(self, number: int) -> GrowthResult:
        """How it grew."""
        return GrowthResult.load(self._growth(number))

    def store(self, name: str) -> Trajectory:
        """The iterates of a run that is done, all of them there."""
        store = self._open(name)
        self._require(store, name, self._stored(name))
        return store

    def lost(self, name: str) -> bool:
        """Whether a run is done whose iterates were deleted since: it is trained again."""
        try:
            self.log(name)
            return self._stored(name) > 0 and not any(self._store_path(name).glob("*"))
        except StoreError:
            return False

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
        config, setup = self.config, self.setup
        model = setup.model(number)
        if start is not None:
            setup.layout.load_(model, start.weights)
            load_buffers(model, start.buffers or {})
        train = config.train

        def optimizer(parameters: Any) -> Optimizer:
            return SGD(
                parameters,
                lr=train.lr,
                momentum=train.momentum,
                weight_decay=train.weight_decay,
                fused=True,  # one pass over weights, gradients and momenta: 2.6x on a CPU
            )

        self.folder.event("training", run=name)
        try:
            log = sgd(
                self._compiled(model),
                setup.task,
                setup.batches(setup.seed(number)),
                epochs=epochs or train.epochs,
                optimizer=optimizer,
                schedule=schedule,
                collectors=collectors,
                validate=self._validation(ema),
                autocast=setup.autocast,
                channels_last=config.channels_last,
                accumulate=train.accumulate,
                clip=train.clip,
                seed=setup.seed(number),
                checkpoint=self._checkpoint(name),
                progress=progress,
            )
        except StoreError as error:
            raise _told(error, name) from error
        stored = 0
        for collector in collectors:
            for target in collector.targets:
                if isinstance(target, Trajectory):
                    stored = _count(collector.when, collector.count)
                    self._require(target, name, stored)
        log.save(self.folder.record(f"training-{name}.json"))
        self._save(name, model, setup.surface.point(model), iterates=str(stored))
        self.folder.event("trained", run=name, seconds=round(log.seconds, 2))

    def _compiled(self, model: nn.Module) -> nn.Module:
        if not self.config.compile:
            return model
        # two fixed shapes, of a batch and of the last one of an epoch: code for any shape is slower
        return torch.compile(model, dynamic=False)  # type: ignore[return-value]

    def _validation(self, ema: EMA | None) -> Callable[[nn.Module], Mapping[str, float]]:
        """NLL on the validation rows after each epoch, of the iterate and of its EMA."""
        surface, rows = self.setup.surface, self.setup.validation

        def validate(model: nn.Module) -> dict[str, float]:
            found = {"nll": float(surface(surface.point(model), loader=rows, batchnorm="frozen"))}
            if ema is not None and ema.count:
                found["ema_nll"] = float(surface(ema.point, loader=rows))
            return found

        return validate

    def _done(self, name: str, *more: str, progress: Progress) -> bool:
        """Whether a run and its weights are there and whole; what is not is made again."""
        if self.lost(name):
            # it begins anew, and is no longer done should that be stopped
            self._checkpoint(name).unlink(missing_ok=True)
            self.folder.forget_weights(name)
            return False
        try:
            self.log(name)
        except StoreError:
            return False
        if not all(self.folder.has_weights(weights) for weights in (name, *more)):
            return False
        if self._stored(name):
            self.store(name)  # says what is damaged
        if callable(progress):
            progress(1, 1)
        return True

    def _save(self, name: str, model: nn.Module, point: Point, **notes: str) -> None:
        self.folder.save_weights(name, model, self.setup.layout, point, **notes)

    def _fresh_store(self, name: str) -> Trajectory:
        """The store of a run: the one to go on with, or a new one."""
        path, checkpoint = self._store_path(name), self._checkpoint(name)
        if not checkpoint.is_file() and not any(path.glob("*.safetensors")):
            shutil.rmtree(path, ignore_errors=True)  # killed before its first checkpoint
            return Trajectory.create(path, self.setup.layout)
        if not checkpoint.is_file():
            raise StoreError(f"{checkpoint} is missing, but {path} has iterates; {_again(name)}")
        return self._open(name)

    def _open(self, name: str) -> Trajectory:
        try:
            # what lies behind its end is trained again, or counted as missing
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".* has no line for ")
                return Trajectory.open(self._store_path(name), layout=self.setup.layout)
        except StoreError as error:
            raise _told(error, name) from error

    def _require(self, store: Trajectory, name: str, expected: int) -> None:
        if len(store) != expected:
            raise StoreError(
                f"{store.path / JOURNAL} has {len(store)} of {expected} iterates; {_again(name)}"
            )

    def _shape(self, number: int) -> Path:
        return self.folder.path / "shapes" / f"simplex-{number}.safetensors"

    def _growth(self, number: int) -> Path:
        return self.folder.record(f"growth-simplex-{number}.json")

    def _stored(self, name: str) -> int:
        """How many iterates a run that is done left."""
        noted = self.folder.notes(name).get("iterates", "0")
        if not noted.isdecimal():
            raise StoreError(
                f"weights/{name}.safetensors: not a number of iterates: {noted[:60]!r}."
            )
        return int(noted)

    def _store_path(self, name: str) -> Path:
        return self.folder.path / "trajectory" / name

    def _checkpoint(self, name: str) -> Path:
        return self.folder.path / "checkpoints" / f"{name}.safetensors"


def _again(name: str) -> str:
    """How to go on without a file."""
    return (
        f"put it back, or delete trajectory/{name}, checkpoints/{name}.safetensors and "
        f"weights/{name}.safetensors from the run folder to train {name} again."
    )


def _told(error: StoreError, name: str) -> StoreError:
    """The same error, with what to do about it in a run folder."""
    return StoreError(f"{str(error).partition('; ')[0]}; {_again(name)}")


def _count(rule: When, steps: int) -> int:
    return sum(map(rule.picks, range(1, steps + 1)))
