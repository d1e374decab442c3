"""Many small networks trained side by side by SGD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

from torch.nn.modules.batchnorm import _BatchNorm

from lowland import checks
from lowland.core import Task
from lowland.errors import DataError
from lowland.records import TrainingLog
from lowland.train.batches import Batches
from lowland.train.member_batches import MemberBatches
from lowland.train.members import Members
from lowland.train.members_trainer import MembersTrainer
from lowland.train.options import StepCollector, TrainKeywords, TrainOptions


def sgd_members(
    members: Members,
    task: Task,
    data: Sequence[Batches],
    *,
    epochs: int,
    collectors: Sequence[StepCollector] = (),
    diverged: str = "stop",
    **options: Unpack[TrainKeywords],
) -> list[TrainingLog]:
    r"""Trains M networks at once, as `sgd` trains one: \(\nabla_W \sum_m L_m(w_m)\) in one pass.

    Row m of the gradient of the sum is the gradient of network m alone, so that each network goes
    where `sgd` would take it, to rounding: with its own weights, examples and order of batches. For
    networks whose steps take less time than launching their operations; on a CPU one thread is
    fastest (`torch.set_num_threads(1)`). Dropout draws other noise than `sgd` does; BatchNorm
    normalises by the batch and keeps no statistics, which are refreshed afterwards. Layers with
    statistics of their own, and spectral norm, are errors.

    Args:
        members: what to train, in place. task: the likelihood.
        data: a `Batches` a network, of equally many batches; where the last ones differ in size,
            as those of cross-validation may, they are padded with examples that do not count.
            Those that share one object of data share its memory.
        epochs: passes over the data.
        collectors: see `Collector`, with targets of `ParamLayout(members)`; `members.split` gives
            each network its part.
        diverged: "stop" raises where a network's loss is NaN or infinite; "drop" sets its weights
            to 0, holds them, and goes on with the others: its losses are NaN from then on.
        options: `TrainOptions`, or keyword arguments with the names of its fields, precision,
            memory format and compilation apart. The optimizer is made from the one parameter
            (M, P); its rule must act on each weight alone, as SGD's and Adam's do. The norm that is
            clipped, or by which `SAM` perturbs, is that of each network's gradient.

    Returns:
        One log per network, with its share of the time.

    Raises:
        NonFiniteError: which networks diverged, and when. DataError: batches that cannot be
            stacked. ConfigError: a checkpoint of a run with other settings.

    >>> import torch
    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> x = torch.linspace(-1, 1, 32)[:, None]
    >>> members = Members(nn.Linear(1, 1) for _ in range(2))
    >>> data = [Batches((x, slope * x), batch_size=8) for slope in (2.0, -3.0)]
    >>> logs = sgd_members(members, Regression(noise_variance=1.0), data, epochs=50)
    >>> members.weights[:, 0].detach().round(decimals=2), len(logs)
    (tensor([ 2., -3.]), 2)
    """
    train = TrainOptions().override(**options)
    train.require_default(
        "autocast",
        "channels_last",
        "compile",
        instead="networks side by side are trained without; train them one by one, with ll.sgd",
    )
    checks.choice("diverged", diverged, ("stop", "drop"))
    if len(data) != len(members):
        raise DataError(f"expected a Batches for each of {len(members)} networks, got {len(data)}.")
    if train.drop_last:
        data = [one.full() if isinstance(one, Batches) else one for one in data]
    batches = MemberBatches(data, device=members.weights.device)
    if batches.ragged and any(isinstance(m, _BatchNorm) for m in members.template.module.modules()):
        raise DataError(
            f"the splits have {min(batches.examples_per_epoch)} to "
            f"{max(batches.examples_per_epoch)} examples, and BatchNorm would see those that "
            "pad the last batch; use drop_last=True, or splits of as many examples."
        )
    task = task.for_model(members.template.module)
    members.require_no_state(task, next(iter(data[0].epoch(0))))
    trainer = MembersTrainer(
        members,
        task,
        batches,
        replace(train, drop_last=False),  # done above, split by split
        epochs=epochs,
        collectors=collectors,
        diverged=diverged,
    )
    trainer.run()
    return trainer.logs()
