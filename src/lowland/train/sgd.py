"""A plain training loop, for trajectories."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Unpack

import torch
from torch import nn

from lowland.core import Task
from lowland.files import PathLike
from lowland.records import TrainingLog
from lowland.train.options import StepCollector, TrainKeywords, TrainOptions
from lowland.train.trainer import Trainer
from lowland.train.training_state import TrainingState


def sgd(
    model: nn.Module,
    task: Task,
    data: Iterable[Any],
    *,
    epochs: int,
    collectors: Sequence[StepCollector] = (),
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    device: torch.device | str | None = None,
    start: TrainingState | PathLike | None = None,
    **options: Unpack[TrainKeywords],
) -> TrainingLog:
    r"""Minimises the mean of `task.nll` over the items of each batch; trains `model` in place.

    Args:
        model, task, data: what to train, by which likelihood, on which batches. With `Batches` a
            resumed run ends with the same weights bit by bit; other loaders are iterated again
            up to the batch where it stopped, which gives the same examples if they draw their order
            from torch's global generator.
        epochs: passes over the data, of this call.
        collectors: see `Collector`; the checkpoint includes them.
        validate: returns metrics of the model after each epoch, for the log.
        device: where to train; None: where the model is.
        start: continues the training of another call from the end of its last epoch, with weights,
            optimizer, random states and order of examples: a `TrainingState`, or the path of one or
            of that call's checkpoint. Collectors begin anew.
        options: optimizer, schedule, clipping, checkpoint and others: `TrainOptions`, or keyword
            arguments with the names of its fields.

    Raises:
        NonFiniteError: a loss that is NaN or infinite; the message has step, epoch and batch, and
            checkpoint and stores keep the state before. DataError: an empty loader, labels that do
            not fit.
        ConfigError: a checkpoint of a run with other settings; a start of another model, optimizer
            or schedule.

    >>> from lowland.core import Regression
    >>> from lowland.train import Batches
    >>> x = torch.linspace(-1, 1, 32)[:, None]
    >>> net = nn.Linear(1, 1)
    >>> log = sgd(net, Regression(noise_variance=1.0), Batches((x, 2 * x), batch_size=8), epochs=50)
    >>> abs(net.weight.item() - 2) < 0.01, len(log.columns["loss"])
    (True, 50)
    """
    trainer = Trainer(
        model,
        task,
        data,
        TrainOptions().override(**options),
        epochs=epochs,
        collectors=collectors,
        validate=validate,
        device=device,
        start=start,
    )
    trainer.run()
    return trainer.log.record()
