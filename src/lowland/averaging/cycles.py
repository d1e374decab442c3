"""Learning rate, error and distance from the start along a trajectory in cycles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, Unpack

import torch
from torch import Tensor

from lowland import checks
from lowland.core import LossSurface
from lowland.core.options import EvalKeywords
from lowland.errors import DataError
from lowland.evaluate.table import evaluate
from lowland.progress import Progress
from lowland.records import CycleSeries, Table
from lowland.trajectory import Trajectory
from lowland.trajectory.collect import When

_LR_POINTS = 40  # of the learning rate in a cycle
MEASURES = ("error", "rmse", "nll")


class CycleSchedule(Protocol):
    """A schedule in cycles: a `CyclicalSchedule` or a `CyclicalCosineSchedule`."""

    cycle: Any

    @property
    def lrs(self) -> Callable[[int], list[float]]:
        """The learning rates after a number of steps."""


def cycle_series(
    surface: LossSurface,
    trajectory: Trajectory,
    loader: Iterable[Any] | None = None,
    *,
    schedule: CycleSchedule,
    members: When,
    start: int = 0,
    split: str = "",
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> CycleSeries:
    r"""Learning rate, metrics and \(\|w - w_0\|\) of the iterates of a training run in cycles.

    The series of figure 3 of Garipov et al. 2018, which `plot` draws.

    Store several iterates of each cycle, the first of them before the first step: for instance by
    `trajectory.append(model, step=0)` and `Collector(trajectory, when=Every(cycle // 8))`.

    Args:
        trajectory: the iterates; the distance is that from the first one.
        loader: labelled examples; None: the surface's own.
        schedule: the schedule of the run. members: the rule that selects its members, such as
            `MidCycle` or `EndOfCycle`. start: steps before the first cycle.
        split: the name of the examples, for labels.
        progress, options: see `predict`.

    Raises:
        DataError: an empty trajectory, or examples without targets.

    >>> import tempfile
    >>> from torch import nn, optim
    >>> from lowland.core import ParamLayout, Regression
    >>> from lowland.trajectory import CyclicalSchedule, MidCycle
    >>> model = nn.Linear(1, 1, bias=False)
    >>> surface = LossSurface(
    ...     model, Regression(noise_variance=1.0), [(torch.ones(2, 1), torch.zeros(2, 1))]
    ... )
    >>> trajectory = Trajectory.create(tempfile.mkdtemp() + "/run", ParamLayout(model))
    >>> for step in range(5):
    ...     trajectory.append(torch.tensor([float(step)]), step=step)
    >>> schedule = CyclicalSchedule(optim.SGD(model.parameters(), lr=0.05), cycle=4)
    >>> series = cycle_series(surface, trajectory, schedule=schedule, members=MidCycle(4))
    >>> series.distance, series.members, series.ends
    (tensor([0., 1., 2., 3., 4.], dtype=torch.float64), tensor([3]), tensor([4]))
    """
    if not len(trajectory):
        raise DataError("the trajectory has no iterates; store several of each cycle.")
    first = trajectory[0].weights
    distances = [float((point.weights - first).double().norm()) for point in trajectory]
    table = evaluate(surface, trajectory, loader, progress=progress, **options)
    metrics = measures_of(table)
    steps = trajectory.steps
    return series_of(steps, distances, metrics, schedule, members, start=start, split=split)


def measures_of(table: Table) -> dict[str, Tensor]:
    """The metrics of a table that the series have."""
    return {name: table.columns[name] for name in MEASURES if name in table.columns}


def series_of(
    steps: list[int],
    distances: list[float],
    metrics: dict[str, Tensor],
    schedule: CycleSchedule,
    members: When,
    *,
    start: int = 0,
    split: str = "",
) -> CycleSeries:
    """The record of networks that were evaluated after these steps, where cycles begin after
    `start` of them."""
    start = checks.whole("start", start, least=0)
    last = max([start, *steps])
    count = int((last - start) // schedule.cycle) + 1
    ends = [start + round(i * schedule.cycle) for i in range(1, count + 1)]
    ends = [end for end in ends if end <= last]
    # a restart is one step long
    grid = range(start, last + 1, max(1, int(schedule.cycle) // _LR_POINTS))
    restarts = (end + 1 for end in ends if end < last)
    selected = [step for step in range(1, last + 1) if members.picks(step)]
    every = {*steps, *grid, *ends, *restarts, *selected}
    lr_steps = sorted(every - ({start} if start < last else set()))
    lrs = [schedule.lrs(max(step - start - 1, 0))[0] for step in lr_steps]
    return CycleSeries(
        step=torch.tensor(steps),
        distance=torch.tensor(distances, dtype=torch.float64),
        metrics=metrics,
        lr_step=torch.tensor(lr_steps),
        lr=torch.tensor(lrs, dtype=torch.float64),
        members=torch.tensor(selected),
        ends=torch.tensor(ends),
        split=split,
    )
