"""When iterates are taken, in any training loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

from lowland import checks
from lowland.errors import ConfigError
from lowland.trajectory.schedules import cycle_at, cycle_length, even_cycle


class When(Protocol):
    """A rule that picks steps; steps are counted from 1, after the optimizer's step."""

    def picks(self, step: int) -> bool:
        """Whether the iterate after this many steps is taken."""
        ...


class Every:
    """Selects every `interval` steps, from a share of the budget on.

    Args:
        interval: steps between iterates; the steps of an epoch for one an epoch.
        total: the budget in steps; None: there is no start to wait for.
        start: the share of the budget after which iterates are taken.

    >>> rule = Every(10, total=100)
    >>> [step for step in range(1, 101) if rule.picks(step)]
    [80, 90, 100]
    """

    def __init__(self, interval: int, *, total: int | None = None, start: float = 0.75) -> None:
        self.interval = checks.whole("interval", interval, least=1)
        start = checks.number("start", start, least=0, most=1)
        total = None if total is None else checks.whole("total", total, least=1)
        # rounded first: 0.55 * 100 is 55.00000000000001
        self.first = 0 if total is None else math.ceil(round(start * total, 6))

    def picks(self, step: int) -> bool:
        return step % self.interval == 0 and step >= self.first

    @property
    def first_step(self) -> int:
        """The first step that it picks."""
        return max(1, math.ceil(self.first / self.interval)) * self.interval

    def count(self, steps: int) -> int:
        """How many of the first `steps` it picks."""
        steps = checks.whole("steps", steps, least=0)
        before = max(self.first - 1, 0) // self.interval
        return max(0, steps // self.interval - before)


class MidCycle:
    """Selects the middle of each cycle of a `CyclicalSchedule`: the iterate after the step with the
    lowest learning rate, of which half a cycle of steps comes before.

    Args:
        cycle: steps in a cycle. start: steps before the first cycle.

    >>> [step for step in range(1, 13) if MidCycle(4).picks(step)]
    [3, 7, 11]
    """

    def __init__(self, cycle: int, *, start: int = 0) -> None:
        self.cycle = even_cycle(cycle)
        self.start = checks.whole("start", start, least=0)

    def picks(self, step: int) -> bool:
        since = step - self.start - 1  # steps before this one, as the schedule counts
        return since >= 0 and since % self.cycle == self.cycle // 2

    def count(self, steps: int) -> int:
        """How many of the first `steps` it picks."""
        steps = checks.whole("steps", steps, least=0)
        return max(0, (steps - self.start - 1 + self.cycle // 2) // self.cycle)


class EndOfCycle:
    """Selects the ends of the cycles of a `CyclicalCosineSchedule`: the members of a snapshot
    ensemble (Huang et al. 2017), or the samples of cSGLD (Zhang et al. 2020).

    Args:
        cycle: steps in a cycle; it need not be whole. start: steps before the first cycle.
        members: iterates of each cycle, evenly spaced over what follows `explore`; the last one is
            at the end of the cycle.
        explore: the share of a cycle before the first of several members, as in `LangevinSGD`.

    Raises:
        ConfigError: a cycle of fewer than 2 steps, or more members than there are steps for them.

    >>> [step for step in range(1, 13) if EndOfCycle(4).picks(step)]
    [4, 8, 12]
    >>> [step for step in range(1, 21) if EndOfCycle(10, members=2, explore=0.6).picks(step)]
    [8, 10, 18, 20]
    """

    def __init__(
        self, cycle: float, *, members: int = 1, explore: float = 0.8, start: int = 0
    ) -> None:
        self.cycle = cycle_length(cycle)
        self.members = checks.whole("members", members, least=1)
        self.explore = checks.number("explore", explore, least=0, below=1)
        self.start = checks.whole("start", start, least=0)
        # rounded first: (1 - 0.8) * 10 is 1.9999999999999996
        steps = round((1 - self.explore) * int(self.cycle), 6)
        if self.members > 1 and steps < self.members:
            raise ConfigError(
                f"members: expected at most {max(int(steps), 1)}, got {self.members}: a cycle of "
                f"{self.cycle:g} steps has {steps:g} after explore={self.explore:g}; take fewer "
                "members, longer cycles, or explore less."
            )

    def picks(self, step: int) -> bool:
        if step <= self.start:
            return False
        _, first, end = cycle_at(step - self.start - 1, self.cycle)
        interval = (1 - self.explore) * (end - first) / self.members
        before = end - (step - self.start)
        return before in (round(i * interval) for i in range(self.members))

    def count(self, steps: int) -> int:
        """How many of the first `steps` it picks."""
        steps = checks.whole("steps", steps, least=0)
        cycles, first, _ = cycle_at(max(steps - self.start, 0), self.cycle)
        rest = range(self.start + first + 1, steps + 1)
        return cycles * self.members + sum(map(self.picks, rest))


def require_pick(when: When, steps: int) -> None:
    """Raises `ConfigError` unless a rule picks one of the first `steps` steps.

    >>> require_pick(Every(10), steps=8)
    Traceback (most recent call last):
    lowland.errors.ConfigError: no iterate would be collected: the first would be collected after
        step 10; the run has 8. Train longer, or collect earlier.
    """
    if any(map(when.picks, range(1, steps + 1))):
        return
    first = next((s for s in range(steps + 1, 100 * steps + 1000) if when.picks(s)), None)
    when_first = "" if first is None else f": the first would be collected after step {first}"
    raise ConfigError(
        f"no iterate would be collected{when_first}; the run has {steps}. Train longer, or collect "
        "earlier."
    )


class Collector:
    """Passes the iterates that a rule selects to stores and averages.

    Call `step(model)` after each step of the optimizer.

    Args:
        targets: a `Trajectory` gets the iterate appended; `SWA`, `SWAG` and `EMA` are updated.
        when: the rule, such as `Every`, `MidCycle` or `EndOfCycle`, or your own with a method
            `picks(step)`.

    >>> from lowland import ParamLayout, SWA
    >>> model = nn.Linear(1, 1)
    >>> swa = SWA(ParamLayout(model))
    >>> collector = Collector(swa, when=Every(2))
    >>> [collector.step(model) for _ in range(4)], swa.count
    ([False, True, False, True], 2)
    """

    def __init__(self, *targets: Any, when: When) -> None:
        for target in targets:
            if not (hasattr(target, "update") or hasattr(target, "append")):
                raise ConfigError(
                    f"expected something to collect into, such as SWAG(layout) or a Trajectory, "
                    f"got {type(target).__name__}."
                )
        self.targets = targets
        self.when = when
        self.count = 0  # steps seen

    def step(self, model: nn.Module, *, metrics: Mapping[str, float] | None = None) -> bool:
        """Counts a step, and collects the iterate if the rule selects it; returns whether it
        did."""
        self.count += 1
        if not self.when.picks(self.count):
            return False
        self.take(model, metrics=metrics)
        return True

    def check(self, steps: int) -> None:
        """Call it before a loop of that many steps: raises `ConfigError`, with the step of the
        first iterate, where none would be collected."""
        require_pick(self.when, checks.whole("steps", steps, least=0))

    def take(self, model: nn.Module, *, metrics: Mapping[str, float] | None = None) -> None:
        """Collects the iterate of step `count`, whatever the rule."""
        for target in self.targets:
            if hasattr(target, "append"):
                target.append(model, step=self.count, metrics=metrics)
            else:
                target.update(model)

    def state_dict(self) -> dict[str, Any]:
        """The state of the collection with its averages; stores are on disk already."""
        states = [t.state_dict() if hasattr(t, "state_dict") else None for t in self.targets]
        return {"count": self.count, "targets": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Returns to a state; later iterates are removed from a store."""
        if len(state["targets"]) != len(self.targets):
            raise ConfigError(
                f"the state is of {len(state['targets'])} targets, this collector has "
                f"{len(self.targets)}; build it as before."
            )
        self.count = state["count"]
        for target, saved in zip(self.targets, state["targets"], strict=True):
            if saved is not None:
                target.load_state_dict(saved)
            elif hasattr(target, "rewind"):
                target.rewind(self.count)
