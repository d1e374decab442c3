"""When iterates are taken, in any training loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

from lowland import checks
from lowland.errors import ConfigError
from lowland.trajectory.schedules import even_cycle


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

    def count(self, steps: int) -> int:
        """How many of the first `steps` it picks."""
        steps = checks.whole("steps", steps, least=0)
        before = max(self.first - 1, 0) // self.interval
        return max(0, steps // self.interval - before)


class MidCycle:
    """Selects the middle of each cycle of a `CyclicalSchedule`, where the learning rate is lowest.

    Args:
        cycle: steps in a cycle. start: steps before the first cycle.

    >>> [step for step in range(1, 13) if MidCycle(4).picks(step)]
    [2, 6, 10]
    """

    def __init__(self, cycle: int, *, start: int = 0) -> None:
        self.cycle = even_cycle(cycle)
        self.start = checks.whole("start", start, least=0)

    def picks(self, step: int) -> bool:
        return step > self.start and (step - self.start) % self.cycle == self.cycle // 2

    def count(self, steps: int) -> int:
        """How many of the first `steps` it picks."""
        steps = checks.whole("steps", steps, least=0)
        return max(0, (steps - self.start + self.cycle // 2) // self.cycle)


class Collector:
    """Passes the iterates that a rule selects to stores and averages.

    Call `step(model)` after each step of the optimizer.

    Args:
        targets: a `Trajectory` gets the iterate appended; `SWA`, `SWAG` and `EMA` are updated.
        when: the rule, such as `Every` or `MidCycle`, or your own with a method `picks(step)`.

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
