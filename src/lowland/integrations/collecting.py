"""What the callbacks share: targets that are built once the model is known, and when to collect."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from lowland.core import ParamLayout
from lowland.core.layout import Where
from lowland.errors import ConfigError
from lowland.files import PathLike
from lowland.trajectory import SWAG, Collector, Every, Trajectory

Target = Callable[[ParamLayout], Any] | PathLike


class Collecting:
    """Iterates of a training run into averages and stores.

    Args:
        targets: each a function of the layout, such as `SWA`, `SWAG` or
            `partial(SWAG, rank=5)`, or the path of a `Trajectory`; none: `SWAG`.
        start: share of the budget after which iterates are taken.
        every_epochs, every_steps: how often, after steps of the optimizer; one of them.
        where: which parameters, see `ParamLayout`.

    >>> collecting = Collecting((), start=0.5, every_epochs=1)
    >>> net = nn.Linear(1, 1)
    >>> collecting.begin(net, total=4, epoch=1)
    >>> [collecting.step(net) for _ in range(4)], collecting.targets[0].count
    ([False, True, True, True], 3)
    """

    def __init__(
        self,
        targets: tuple[Target, ...],
        *,
        start: float = 0.75,
        every_epochs: int | None = None,
        every_steps: int | None = None,
        where: Where = None,
    ) -> None:
        if every_epochs is not None and every_steps is not None:
            raise ConfigError("give every_epochs or every_steps, not both.")
        given = every_steps if every_steps is not None else every_epochs
        self._interval = 1 if given is None else given
        Every(self._interval, total=1, start=start)  # checked at the door
        self._in_steps = every_steps is not None
        self._makers = targets or (SWAG,)
        self._start = start
        self._where = where
        self._collector: Collector | None = None
        self._state: Mapping[str, Any] | None = None  # that came before the model

    @property
    def targets(self) -> tuple[Any, ...]:
        """What is collected into, once training has begun."""
        if self._collector is None:
            raise ConfigError("nothing is collected yet: training has not begun.")
        return self._collector.targets

    def begin(self, model: nn.Module, *, total: float, epoch: float | None, done: int = 0) -> None:
        """Builds the targets for a model, or goes on with those of an earlier fit.

        Args:
            total: steps of the budget. epoch: steps in an epoch, where that is known.
            done: steps made before: this is a run that goes on.
        """
        old, state = self._collector, self._state
        when = self._rule(total, epoch)
        if old is not None and (state is not None or old.count == done > 0):
            collector = Collector(*old.targets, when=when)
            collector.count = done
        else:
            layout = ParamLayout(model, where=self._where)
            targets = [_made(maker, layout, done) for maker in self._makers]
            collector = Collector(*targets, when=when)
            collector.count = done
            if state is None and any(when.picks(step) for step in range(1, done + 1)):
                warnings.warn(
                    f"training goes on after step {done} from a checkpoint without what was "
                    "collected before: the averages begin anew.",
                    stacklevel=3,
                )
        if state is not None:
            collector.load_state_dict(state)
        self._collector, self._state = collector, None

    def _rule(self, total: float, epoch: float | None) -> Every:
        if not math.isfinite(total) or total < 1:
            raise ConfigError(
                f"the budget is {total} steps, so that a share of it is no step; set the trainer's "
                "number of epochs or steps."
            )
        interval = self._interval
        if not self._in_steps:
            if epoch is None or not math.isfinite(epoch):
                raise ConfigError(
                    "the training data have no length, so that epochs cannot be counted; give "
                    "every_steps=."
                )
            interval *= int(epoch)
        return Every(interval, total=int(total), start=self._start)

    def step(self, model: nn.Module) -> bool:
        """After each step of the optimizer; says whether the iterate was taken."""
        assert self._collector is not None  # begin comes first
        return self._collector.step(model)

    def state_dict(self) -> dict[str, Any]:
        """Where the collection stands, for a checkpoint: plain values and tensors."""
        if self._state is not None:
            return dict(self._state)
        return {} if self._collector is None else self._collector.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state, now or once the model is known."""
        self._state = state or None


def _made(maker: Target, layout: ParamLayout, done: int) -> Any:
    if not isinstance(maker, str | os.PathLike):
        return maker(layout)
    path = Path(maker)
    if not done or not path.exists():
        return Trajectory.create(path, layout)
    store = Trajectory.open(path, layout=layout)
    store.rewind(done)
    return store
