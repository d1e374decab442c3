"""A plain training loop, for trajectories."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lowland.artifacts import Checkpoint
from lowland.core import Task
from lowland.files import PathLike
from lowland.progress import Progress
from lowland.records import TrainingLog
from lowland.train.options import Collects, Options
from lowland.train.run import Run


def sgd(
    model: nn.Module,
    task: Task,
    data: Iterable[Any],
    *,
    epochs: int,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
    schedule: Callable[[Optimizer], LRScheduler] | None = None,
    collectors: Sequence[Collects] = (),
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    device: torch.device | str | None = None,
    autocast: bool | str | torch.dtype | None = None,
    channels_last: bool = False,
    accumulate: int = 1,
    clip: float | None = None,
    drop_last: bool = False,
    seed: int = 0,
    checkpoint: Checkpoint | PathLike | None = None,
    checkpoint_steps: int | None = None,
    progress: Progress = False,
) -> TrainingLog:
    r"""Minimises the mean of `task.nll` over the items of each batch; trains `model` in place.

    Args:
        model, task, data: what to train, by which likelihood, on which batches. With `Batches` a
            resumed run ends with the same weights bit by bit; other loaders are gone through again
            up to the batch where it stopped, which gives the same rows if they draw their order
            from torch's global generator.
        epochs: passes over the data.
        optimizer: made from the parameters; None: SGD, learning rate 0.05, momentum 0.9. One whose
            step needs a closure, such as SAM or LBFGS, gets one: the loss of the same batches at
            the weights of then, whose passes leave BatchNorm statistics and other buffers alone.
        schedule: made from the optimizer, and stepped once an optimizer step; None: constant.
        collectors: see `Collector`; they are part of the checkpoint.
        validate: gives figures of the model after each epoch, for the log.
        device: where to train; None: where the model is.
        autocast: True, a dtype or its name for `torch.autocast`; float16 on a GPU scales the loss.
        channels_last: memory format of images and convolutions.
        accumulate: batches per optimizer step, whose gradient is the mean of theirs.
        clip: the largest norm of the gradient of what is optimised.
        drop_last: leaves out a last batch that is smaller than the first: of one example, BatchNorm
            can make nothing.
        seed: of dropout and other noise; the caller's random state is left as it was.
        checkpoint: a file to write the whole state to, before the first step, every 20 seconds (or
            every `checkpoint_steps` steps) and at the end, and to continue from if it is there.
        progress: True for a bar, or a callable of (done, total).

    Raises:
        NonFiniteError: a loss that is NaN or infinite: it names step, epoch and batch; checkpoint
            and stores keep the state before. DataError: an empty loader, labels that do not fit.
        ConfigError: a checkpoint of a run with other settings.

    >>> from lowland.core import Regression
    >>> from lowland.train import Batches
    >>> x = torch.linspace(-1, 1, 32)[:, None]
    >>> net = nn.Linear(1, 1)
    >>> log = sgd(net, Regression(noise_variance=1.0), Batches((x, 2 * x), batch_size=8), epochs=50)
    >>> abs(net.weight.item() - 2) < 0.01, len(log.columns["loss"])
    (True, 50)
    """
    options = Options(
        epochs,
        optimizer=optimizer,
        schedule=schedule,
        collectors=collectors,
        validate=validate,
        device=device,
        autocast=autocast,
        channels_last=channels_last,
        accumulate=accumulate,
        clip=clip,
        drop_last=drop_last,
        seed=seed,
        checkpoint=checkpoint,
        checkpoint_steps=checkpoint_steps,
    )
    run = Run(model, task, data, options)
    run.to_the_end(progress)
    return run.log()
