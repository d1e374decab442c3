"""The first batch of each split through the model, before anything is spent or written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lowland.core.autograd import value_of
from lowland.core.batchnorm import refuse_one_example
from lowland.core.call import check_batch
from lowland.core.data import first_examples, move
from lowland.errors import DataError, LowlandError
from lowland.runs.user_code import error_line
from lowland.train import Batches

if TYPE_CHECKING:
    from lowland.runs.setup import Setup

_NOTHING = object()


def check_first_batches(setup: Setup, model: nn.Module) -> None:
    """Takes examples of each split through a fresh network, and as many as the last batch of
    training has.

    Raises:
        DataError: no examples or no target, a call of the model that fails, targets that do not
            fit its outputs, a loss that is NaN or infinite.
    """
    train = setup.batches(0)
    loaders = {"train": train, "validation": setup.validation, "test": setup.test}
    for split, loader in loaders.items():
        _check_split(setup, model.train(split == "train"), split, loader)
    rest = train.num_examples % train.batch_size if isinstance(train, Batches) else 0
    if rest and not train.drop_last:
        _check_split(setup, model.train(), "train", train, rest)


def _check_split(
    setup: Setup, model: nn.Module, split: str, loader: Any, size: int | None = None
) -> None:
    task, device, config = setup.task, torch.device(setup.device), setup.config
    n = f"the last batch ({size} examples)" if size else "a batch"
    try:
        raw = next(iter(loader), _NOTHING)
        if raw is _NOTHING:
            raise DataError("it gave no examples; check its data set.")
        if raw is None:
            raise DataError("it is None; let the data's transform return a batch.")
        batch = task.parts(raw)
        if batch.target is None:
            raise DataError("it has no target; give (inputs, target).")
        args, kwargs, target = move(first_examples(batch, size) if size else batch, device)
        with torch.autocast(device.type, setup.autocast, enabled=setup.autocast is not None):
            try:
                output = value_of(lambda: task.output(model(*args, **kwargs)))
            except ValueError as error:
                refuse_one_example(error)
                raise
        check_batch(task, (args, kwargs), output, target)
        if not bool(torch.isfinite(task.items_nll(output, target)).all()):
            raise DataError(
                "the loss of the fresh network is NaN or infinite; look for such values in the "
                "examples and in the model's first weights, and for a scale that is far from 1."
            )
    except Exception as error:
        end = "" if isinstance(error, LowlandError) else "."
        raise DataError(
            f"{config.model.name} on {n} of {split} from {config.data.name}: "
            f"{error_line(error)}{end}"
        ) from error
