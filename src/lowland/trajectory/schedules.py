r"""Learning rates of the papers as torch schedulers, in steps or epochs: as you step them.

Each is a closed form of the number of `.step()` calls, so that a schedule restored from its
`state_dict` continues exactly. Parameter groups keep the proportions of the optimizer's own
learning rates.

After another schedule on the same optimizer, each goes on from the learning rate that the other has
reached, as torch's `SWALR` does: whether it is made then or before, and in `SequentialLR`. After a
warm-up it begins at the optimizer's own learning rate. In `ChainedScheduler` the last of such
schedules alone counts, as with torch's `LambdaLR`.
"""

from __future__ import annotations

import math
from abc import abstractmethod

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lowland import checks
from lowland.errors import ConfigError


class Schedule(LRScheduler):
    """Base: a subclass writes `lrs`, a closed form of the step and of `starts`."""

    def __init__(self, optimizer: Optimizer) -> None:
        # torch marks both; a schedule that is made beside another one waits for its turn
        self._waits = hasattr(optimizer.step, "_wrapped_by_lr_sched") and not getattr(
            optimizer, "_opt_called", False
        )
        self.starts: list[float] = []  # each parameter group's learning rate where this begins
        super().__init__(optimizer)

    @abstractmethod
    def lrs(self, step: int) -> list[float]:
        """The learning rate of each parameter group after `step` calls of `.step()`."""

    def get_lr(self) -> list[float]:  # type: ignore[override]
        now = [float(group["lr"]) for group in self.optimizer.param_groups]
        if not self.starts:
            self.starts = self._bases if self._waits else now
            if self._waits:
                return now
        # its first step, or its turn in SequentialLR: another schedule may have lowered it
        elif self.last_epoch <= 1 and now[0] < float(self._last_lr[0]):
            self.starts = now
        return self.lrs(self.last_epoch)

    @property
    def _bases(self) -> list[float]:
        return [float(base) for base in self.base_lrs]

    def _scaled(self, lr: float) -> list[float]:
        """`lr` for the first parameter group, the others in proportion."""
        first = self._bases[0]
        if first <= 0:
            raise ConfigError(
                f"lr: expected a positive learning rate for the first parameter group, got {first}."
            )
        return [lr * (base / first) for base in self._bases]


class ConstantSchedule(Schedule):
    """The optimizer's learning rate throughout: iterates around one minimum.

    >>> from torch import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    >>> ConstantSchedule(optimizer).get_last_lr()
    [0.1]
    """

    def lrs(self, step: int) -> list[float]:
        return self.starts


class DecaySchedule(Schedule):
    r"""Constant to half of `total`, then linear down to `final` at 90% of it, then flat.

    With t = step / total the factor is 1 for t <= 0.5, \(1 - (1 - f)(t - 0.5) / 0.4\) up to 0.9 and
    f after: how Garipov et al. 2018 and Izmailov et al. 2018 train single networks and curves.

    Args:
        total: the budget, in calls of `.step()`. final: f, the last learning rate divided by the
            first.

    >>> from torch import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> schedule = DecaySchedule(optimizer, total=10)
    >>> [round(schedule.lrs(step)[0], 3) for step in (0, 5, 7, 9, 10)]
    [1.0, 1.0, 0.505, 0.01, 0.01]
    """

    def __init__(self, optimizer: Optimizer, *, total: int, final: float = 0.01) -> None:
        self.total = checks.whole("total", total, least=1)
        self.final = checks.number("final", final, least=0)
        super().__init__(optimizer)

    def lrs(self, step: int) -> list[float]:
        return [lr * _decay(step / self.total, self.final) for lr in self.starts]


class SWASchedule(Schedule):
    """Constant to half of `start`, linear to `swa_lr` at 90% of it, then constant.

    Izmailov et al. 2018: an ordinary start of training, then a constant learning rate that is high
    enough to move around the flat region whose centre SWA estimates.

    Args:
        total: the budget, in calls of `.step()`.
        swa_lr: the constant learning rate of the first parameter group; others keep their
            proportion to it.
        start: where averaging starts, as a share of `total`.

    >>> from torch import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    >>> schedule = SWASchedule(optimizer, total=100, swa_lr=0.05)
    >>> [round(schedule.lrs(step)[0], 3) for step in (0, 37, 52, 75, 100)]
    [0.1, 0.1, 0.076, 0.05, 0.05]
    """

    def __init__(
        self, optimizer: Optimizer, *, total: int, swa_lr: float, start: float = 0.75
    ) -> None:
        self.total = checks.whole("total", total, least=1)
        self.swa_lr = checks.number("swa_lr", swa_lr, above=0)
        self.start = checks.number("start", start, above=0, most=1)
        super().__init__(optimizer)

    def lrs(self, step: int) -> list[float]:
        share = 1 - _decay(step / (self.start * self.total), 0.0)  # of the way to swa_lr
        ends = self._scaled(self.swa_lr)
        return [a + (b - a) * share for a, b in zip(self.starts, ends, strict=True)]


class CyclicalSchedule(Schedule):
    r"""The triangle of fast geometric ensembling (Garipov et al. 2018), stepped every iteration.

    With t the fraction of the cycle that has passed, the learning rate falls from `high` to `low`
    for t < ½, \(\alpha_1 (1 - 2t) + 2 \alpha_2 t\), and rises again. Members are collected in
    mid-cycle, where it is lowest: see `MidCycle`.

    Args:
        cycle: steps in a cycle, an even number.
        high, low: \(\alpha_1, \alpha_2\), of the first parameter group; others keep their
            proportion to it.

    >>> from torch import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.05)
    >>> schedule = CyclicalSchedule(optimizer, cycle=4)
    >>> [round(schedule.lrs(step)[0], 5) for step in range(5)]
    [0.05, 0.02505, 0.0001, 0.02505, 0.05]
    """

    def __init__(
        self, optimizer: Optimizer, *, cycle: int, high: float = 0.05, low: float = 1e-4
    ) -> None:
        self.cycle = even_cycle(cycle)
        self.high = checks.number("high", high, above=0)
        self.low = checks.number("low", low, above=0, most=self.high)
        super().__init__(optimizer)

    def lrs(self, step: int) -> list[float]:
        t = step % self.cycle / self.cycle
        down = min(2 * t, 2 - 2 * t)  # 0 at the ends of the cycle, 1 in its middle
        return self._scaled(self.high * (1 - down) + self.low * down)


class CyclicalCosineSchedule(Schedule):
    r"""Cosine cycles with warm restarts, of snapshot ensembles and cSGLD, stepped every iteration.

    \(\eta = \eta_1 + \tfrac12 (\eta_0 - \eta_1)(1 + \cos \pi r)\), where r goes from 0 to 1 in each
    cycle (Huang et al. 2017; Zhang et al. 2020). Members are collected at the ends of cycles, where
    the learning rate is lowest: see `EndOfCycle`.

    Args:
        cycle: steps in a cycle, such as `total / 5`. It need not be a whole number: cycle i ends
            after round(i * cycle) steps, so that lengths differ by at most one step.
        high: \(\eta_0\), of the first parameter group; others keep their proportion to it. None:
            the optimizer's own.
        low: \(\eta_1\), likewise; no step is made with it, since the next cycle begins there.

    Raises:
        ConfigError: a cycle of fewer than 2 steps, learning rates out of order.

    >>> from torch import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    >>> schedule = CyclicalCosineSchedule(optimizer, cycle=10 / 4)  # ends after 2, 5, 8, 10 steps
    >>> [round(schedule.lrs(step)[0], 3) for step in range(10)]
    [0.1, 0.05, 0.1, 0.075, 0.025, 0.1, 0.075, 0.025, 0.1, 0.05]
    """

    def __init__(
        self, optimizer: Optimizer, *, cycle: float, high: float | None = None, low: float = 0.0
    ) -> None:
        self.cycle = cycle_length(cycle)
        self.high = None if high is None else checks.number("high", high, above=0)
        group = optimizer.param_groups[0]
        most = float(group.get("initial_lr", group["lr"])) if self.high is None else self.high
        self.low = checks.number("low", low, least=0, most=most)
        super().__init__(optimizer)

    def lrs(self, step: int) -> list[float]:
        highs = self.starts if self.high is None else self._scaled(self.high)
        lows = self._scaled(self.low) if self.low else [0.0] * len(highs)
        _, start, end = cycle_at(step, self.cycle)
        share = 0.5 * (1 + math.cos(math.pi * (step - start) / (end - start)))
        return [low + (high - low) * share for high, low in zip(highs, lows, strict=True)]


def cycle_length(cycle: float) -> float:
    """Steps in a cycle of any length from 2 on."""
    return checks.number("cycle", cycle, least=2, hint="make fewer cycles, or train for more steps")


def cycle_at(step: int, cycle: float) -> tuple[int, int, int]:
    """The number of the cycle that follows `step` steps, and its first and last step.

    Cycle i goes from round(i * cycle) to round((i + 1) * cycle).

    >>> [cycle_at(step, 2.5) for step in (0, 2, 4, 5)]
    [(0, 0, 2), (1, 2, 5), (1, 2, 5), (2, 5, 8)]
    """
    i = int(step // cycle)
    i += (round((i + 1) * cycle) <= step) - (round(i * cycle) > step)
    return i, round(i * cycle), round((i + 1) * cycle)


def even_cycle(cycle: int) -> int:
    """Steps in a cycle that has a middle."""
    cycle = checks.whole("cycle", cycle, least=2)
    if cycle % 2:
        raise ConfigError(f"cycle: expected an even number of steps, got {cycle}.")
    return cycle


def _decay(t: float, final: float) -> float:
    """1 until t = 0.5, linear to `final` at 0.9, constant after."""
    return 1 - (1 - final) * min(max((t - 0.5) / 0.4, 0.0), 1.0)
