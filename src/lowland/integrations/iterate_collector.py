"""Collection of iterates for the callbacks of other trainers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from lowland.core import ParamLayout
from lowland.core.names import Where
from lowland.errors import ConfigError
from lowland.files import PathLike
from lowland.trajectory import SWAG, Collector, Every, Trajectory
from lowland.warn import warn

_ROUNDING = 1e-9  # of shares of the budget
Target = Callable[[ParamLayout], Any] | PathLike


class IterateCollector:
    """Iterates of a training run into averages and stores.

    An iterate is the weights at the end of a batch in which they moved: one a batch, however many
    optimizers stepped in it.

    Args:
        targets: each a function of the layout, such as `SWA`, `SWAG` or
            `partial(SWAG, rank=5)`, or the path of a `Trajectory`; none: `SWAG`.
        start: share of the budget after which iterates are taken.
        every_epochs, every_steps: how often, in epochs or in iterates; one of them.
        where: which parameters, see `ParamLayout`.

    >>> collector = IterateCollector((), start=0.5, every_steps=1)
    >>> net = nn.Linear(1, 1)
    >>> collector.begin(net)
    >>> [collector.step(net, step=n, share=n / 4) for n in (1, 2, 3, 4)]
    [False, True, True, True]
    >>> collector.targets[0].count, collector.end()
    (3, '3 iterates were collected, from step 2 to step 4.')
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
        interval = every_steps if every_steps is not None else every_epochs
        self._interval = 1 if interval is None else interval
        Every(self._interval, total=1, start=start)  # checked at the door
        self._in_steps = every_steps is not None
        self._makers = targets or (SWAG,)
        self._start = start
        self._where = where
        self._collector: Collector | None = None
        self._state: Mapping[str, Any] | None = None  # that came before the model
        self._iterates = 0  # seen, of which some are taken
        self._steps: list[int] = []  # of those that were taken in this fit
        self._share = 0.0  # of the budget, at the last look
        self._versions: list[tuple[int, int]] = []
        self._counts_writes = False  # whether torch counts the optimizer's writes

    @property
    def targets(self) -> tuple[Any, ...]:
        """What is collected into, once training has begun."""
        if self._collector is None:
            raise ConfigError("nothing is collected yet: training has not begun.")
        return self._collector.targets

    def begin(
        self,
        model: nn.Module,
        *,
        budget: bool = True,
        length: bool = True,
        done: int = 0,
        share: float = 0.0,
        epoch: int = 0,
    ) -> None:
        """Builds the targets for a model, or goes on with those of an earlier fit.

        Args:
            budget: whether the trainer knows when it ends. length: whether an epoch does.
            done, share, epoch: steps, share of the budget and epochs that were made before: this
                is a run that goes on.
        """
        if not budget and self._start > 0:
            raise ConfigError(
                f"the trainer has no budget, so that start={self._start:g} is no share of one; set "
                "its number of epochs or steps, or start=0."
            )
        if not length and not self._in_steps:
            raise ConfigError(
                "the training data have no length, so that epochs cannot be counted; give "
                "every_steps=."
            )
        old, state = self._collector, self._state
        if state is not None:
            done = state["count"]
        if old is not None and (state is not None or old.count == done > 0):
            collector = old
        else:
            layout = ParamLayout(model, where=self._where)
            targets = [_make_target(maker, layout, done) for maker in self._makers]
            collector = Collector(*targets, when=Every(1))
            collector.count, self._iterates = done, done
            due = (done if self._in_steps else epoch) >= self._interval and share >= self._start
            if state is None and done and due:
                warn(
                    f"training goes on after step {done} from a checkpoint without what was "
                    "collected before: the averages begin anew.",
                )
        if state is not None:
            collector.load_state_dict(state)
            self._iterates = state.get("iterates", done)
        self._collector, self._state, self._steps = collector, None, []
        self._share, self._versions = share, _versions(model)

    def step(self, model: nn.Module, *, step: int, share: float, epoch: int | None = None) -> bool:
        """After each batch; says whether the iterate was taken.

        Args:
            step: how many steps of its optimizers the trainer has counted.
            share: of the budget that is used up.
            epoch: where one ends here, how many there were.
        """
        collector = self._collector
        assert collector is not None  # begin comes first
        versions = _versions(model)
        changed = versions != self._versions  # by steps that the trainer need not know of
        self._counts_writes = self._counts_writes or changed
        # some optimizers write behind torch's back
        is_new = changed or (not self._counts_writes and step > collector.count)
        self._share, self._versions = share, versions
        if is_new:
            self._iterates += 1
            collector.count = max(step, collector.count + 1)
        if self._in_steps:
            due = is_new and self._iterates % self._interval == 0
        else:
            due = epoch is not None and epoch % self._interval == 0
        last = self._steps[-1] if self._steps else 0
        if not due or share < self._start - _ROUNDING or collector.count <= last:
            return False
        collector.take(model)
        self._steps.append(collector.count)
        return True

    def end(self) -> str:
        """What was collected in this fit, in a sentence; warns where it is too little to use."""
        steps = self._steps
        if len(steps) > 1:
            text = (
                f"{len(steps)} iterates were collected, from step {steps[0]} to step {steps[-1]}."
            )
        elif steps:
            text = f"1 iterate was collected, at step {steps[0]}."
        else:
            text = f"No iterate was collected: {self._reason()}."
        count = min(_num_iterates(target) for target in self.targets)  # of an earlier fit, too
        if count == 0:
            warn(text)
        elif count == 1 and any(isinstance(target, SWAG) for target in self.targets):
            advice = "SWAG needs two: start earlier, or collect more often."
            warn(f"{text} {advice}")
        return text

    def _reason(self) -> str:
        if not self._iterates:
            return (
                "the weights never moved at the end of a batch; check that an optimizer steps the "
                "parameters of this network"
            )
        if self._share < self._start - _ROUNDING:
            return (
                f"training ended at {self._share:.0%} of its budget, before start={self._start:g}; "
                "lower start="
            )
        every = f"every_{'steps' if self._in_steps else 'epochs'}={self._interval}"
        return (
            f"with {every}, none of the {self._iterates} iterates was due after start="
            f"{self._start:g}; collect more often, or start earlier"
        )

    def state_dict(self) -> dict[str, Any]:
        """Where the collection stands, for a checkpoint: plain values and tensors."""
        if self._state is not None:
            return dict(self._state)
        if self._collector is None:
            return {}
        return self._collector.state_dict() | {"iterates": self._iterates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state, now or once the model is known."""
        self._state = state or None


def _num_iterates(target: Any) -> float:
    """How many iterates are in a store or an average; infinity where that is not known."""
    return len(target) if hasattr(target, "append") else getattr(target, "count", math.inf)


def _versions(model: nn.Module) -> list[tuple[int, int]]:
    """What changes whenever a parameter is written to, or gets other data."""
    return [(p.data_ptr(), p._version) for p in model.parameters()]


def _make_target(maker: Target, layout: ParamLayout, done: int) -> Any:
    if not isinstance(maker, str | os.PathLike):
        return maker(layout)
    path = Path(maker)
    if not done or not path.exists():
        return Trajectory.create(path, layout)
    store = Trajectory.open(path, layout=layout)
    store.rewind(done)
    return store
