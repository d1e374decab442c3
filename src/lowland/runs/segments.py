"""The segments of a run's trainings: what they continue, at which learning rate, what they store.

With a learning rate of its own from the first step on, an SWA trajectory shares nothing with SGD:
`AnnealedSGD` and `AveragedTrajectory` begin with the first weights. Where trainings share their
first epochs (`Run.shares_prefix`), `Prefix` is trained once, and all others continue it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lowland.artifacts import Checkpoint, Inputs
from lowland.core import Point
from lowland.progress import Report
from lowland.records import TrainingLog
from lowland.runs.cycles import CyclesTraining
from lowland.runs.training import ScheduleFactory, Training, optimizer_of, schedule_of
from lowland.train import schedule_named
from lowland.trajectory import EMA, Collector, CyclicalSchedule, Every, MidCycle

if TYPE_CHECKING:
    from lowland.runs.run import Run


class Prefix(Training):
    """SGD by its own schedule up to the epoch from which trainings branch."""

    kind = "prefix"
    intermediate = True
    publishes_state = True

    def __init__(self, run: Run, network: int) -> None:
        label = f"SGD {network + 1}, first epochs"
        super().__init__(run, "prefix", network, label=label, epochs=run.budget.prefix_epochs)

    def schedule(self, inputs: Inputs) -> ScheduleFactory:
        return schedule_of(self.run.config.train, self.run.budget.total)


class AnnealedSGD(Training):
    """SGD to the end of its budget with a learning rate that decays.

    After a prefix it equals the training without one bit by bit, and stores iterates as SWA does:
    its own schedule is one way to average.
    """

    kind = "sgd"

    def __init__(self, run: Run, network: int, prefix: Prefix | None = None) -> None:
        budget = run.budget
        super().__init__(
            run,
            "sgd",
            network,
            label=f"SGD {network + 1}",
            start=prefix,
            epochs=budget.epochs - (prefix.last_epoch if prefix else 0),
            iterates=budget.iterates if prefix else None,
        )

    def schedule(self, inputs: Inputs) -> ScheduleFactory:
        return schedule_of(self.run.config.train, self.run.budget.total)

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> TrainingLog:
        log = super().build(inputs, checkpoint, progress)
        if self.start is None:
            return log
        first = inputs[self.start.name].log.columns
        columns = {name: torch.cat([first[name], log.columns[name]]) for name in first}
        whole: TrainingLog = replace(log, columns=columns)
        return whole


class AveragedTrajectory(Training):
    """SGD that ends at a constant learning rate: iterates are stored, and an EMA is updated."""

    kind = "swa"
    intermediate = True  # its iterates take room, and averages are artifacts of their own
    publishes_state = True

    def __init__(self, run: Run, network: int) -> None:
        average = run.config.average.model_dump(include={"lr", "ema_decay", "ema_warmup"})
        super().__init__(
            run,
            "swa",
            network,
            label=f"SWA trajectory {network + 1}",
            epochs=run.budget.epochs,
            iterates=run.budget.iterates,
            average=average | {"start": run.budget.start},
        )

    def schedule(self, inputs: Inputs) -> ScheduleFactory | None:
        average, warmup = self.run.config.average, self.run.config.train.warmup
        settings = {"swa_lr": average.lr, "start": self.run.budget.start}
        return schedule_named("SWASchedule", total=self.run.budget.total, warmup=warmup, **settings)

    def collectors(self, checkpoint: Checkpoint) -> list[Collector]:
        average, layout = self.run.config.average, self.run.setup.layout
        ema = EMA(layout, decay=average.ema_decay, warmup=average.ema_warmup)
        return [*super().collectors(checkpoint), Collector(ema, when=Every(1))]


class TunedTrajectory(AveragedTrajectory):
    """SGD from the prefix on, at the constant learning rate that short trials choose."""

    keeps_schedule = False

    def __init__(self, run: Run, network: int) -> None:
        self.learning_rate = run.learning_rate()
        self.choices = (self.learning_rate,)
        prefix, average = run.prefix(network), run.config.average
        Training.__init__(
            self,
            run,
            "swa",
            network,
            self.learning_rate,
            label=f"SWA trajectory {network + 1}",
            start=prefix,
            epochs=run.budget.epochs - prefix.last_epoch,
            iterates=run.budget.iterates,
            average=average.model_dump(include={"ema_decay", "ema_warmup"}),
        )

    def optimizer(self, inputs: Inputs) -> Callable[[Any], Optimizer]:
        return optimizer_of(self.run.config.train, self.learning_rate.lr(inputs))

    def schedule(self, inputs: Inputs) -> ScheduleFactory | None:
        return None


class Segment(Training):
    """A training that continues another from the end of its last epoch, and may be continued.

    Args:
        name: without the number of the network, which is that of `start`. start: what it continues.
        epochs: its own. lr: a constant learning rate; None: the schedule of `start` goes on.
        label: of its progress bar; empty: its name and its epochs.
        iterates: the steps whose iterates are stored, counted from the network's first step.
        own: further settings that change its weights.
    """

    kind = "segment"
    intermediate = True
    publishes_state = True
    start: Training

    def __init__(
        self,
        run: Run,
        name: str,
        start: Training,
        *,
        epochs: int,
        lr: float | None = None,
        label: str = "",
        iterates: Every | None = None,
        **own: Any,
    ) -> None:
        self.lr = lr
        self.keeps_schedule = lr is None
        self.choices = start.choices  # of the optimizer that it goes on with
        first, last = start.last_epoch + 1, start.last_epoch + epochs
        super().__init__(
            run,
            name,
            start.network,
            *self.choices,
            label=label or f"{name}-{start.network}, epochs {first} to {last}",
            start=start,
            epochs=epochs,
            iterates=iterates,
            lr=lr,
            **own,
        )

    def optimizer(self, inputs: Inputs) -> Callable[[Any], Optimizer]:
        if self.lr is None:
            return self.start.optimizer(inputs)
        return optimizer_of(self.run.config.train, self.lr)

    def schedule(self, inputs: Inputs) -> ScheduleFactory | None:
        return self.start.schedule(inputs) if self.lr is None else None


class FGECycles(CyclesTraining):
    """FGE's cycles to the end of the budget: from the first averaged iterate of a trajectory, or
    from the prefix where trainings share one."""

    kind = "fge"
    version = 2
    keeps_schedule = False

    def __init__(self, run: Run, network: int) -> None:
        budget, fge = run.budget, run.config.fge
        self.cycle = budget.cycle
        self.learning_rate = run.learning_rate() if fge.needs_lr and run.shares_prefix else None
        prefix = run.prefix(network) if run.shares_prefix else None
        self.trajectory = None if prefix else run.averaged(network)
        first = prefix.last_epoch * budget.epoch if prefix else 0
        super().__init__(
            run,
            "fge",
            network,
            *(each for each in (self.trajectory, self.learning_rate) if each),
            label="FGE cycles",
            start=prefix,
            epochs=budget.epochs - prefix.last_epoch if prefix else budget.cycle_epochs,
            iterates=MidCycle(budget.cycle, start=first),
            fge=fge.model_dump(include={"high", "low"}),
            cycle=budget.cycle,
            lr=run.config.average.lr if fge.needs_lr else None,
        )

    def schedule(self, inputs: Inputs) -> ScheduleFactory:
        config, cycle = self.run.config, self.run.budget.cycle
        lr = self.learning_rate.lr(inputs) if self.learning_rate else config.average.lr
        high, low = config.fge.lrs(lr)

        def cycles(optimizer: Optimizer) -> LRScheduler:
            return CyclicalSchedule(optimizer, cycle=cycle, high=high, low=low)

        return cycles

    def first_weights(self, inputs: Inputs) -> Point | None:
        if self.trajectory is None:
            return None
        first: Point = inputs[self.trajectory.name].iterates[0]
        return first
