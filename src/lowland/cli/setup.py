"""From a configuration to model, task and data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lowland.cli.config import Config
from lowland.core import Classification, LanguageModeling, LossSurface, Regression, Task
from lowland.errors import ConfigError
from lowland.train import Batches, best_threads

SPLITS = ("train", "validation", "test")
_TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "regression": Regression,
    "language": LanguageModeling,
}


class Setup:
    """What a run works on.

    `data` gives a mapping with "train", "validation" and "test": tuples of tensors, data sets or
    loaders; "clean" may add the training rows without augmentation, for BatchNorm statistics, and
    "transform" a function (batch, generator) -> batch for the training batches.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.task = self._task()
        found = config.data.call()
        if not isinstance(found, Mapping) or any(name not in found for name in SPLITS):
            keys = sorted(found) if isinstance(found, Mapping) else type(found).__name__
            raise ConfigError(
                f"{config.data.name}: expected a dict with train, validation and test, got {keys}."
            )
        self.data = found
        self.validation = self._loader(found["validation"])
        self.test = self._loader(found["test"])
        self.clean = self._loader(found.get("clean", found["train"]))
        self.device = config.device or "cpu"
        self.surface = LossSurface(
            self.model(config.seed),
            self.task,
            self.clean,
            device=self.device,
            autocast=self.autocast,
            bn_rows=config.bn_rows,
            channels_last=config.channels_last,
        )
        self.layout = self.surface.layout

    @property
    def autocast(self) -> torch.dtype | None:
        """The dtype to compute in, or None."""
        name = self.config.autocast
        return None if name is None else getattr(torch, name)

    def model(self, seed: int) -> nn.Module:
        """A fresh model from a seed, on the device."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = self.config.model.call()
        if not isinstance(made, nn.Module):
            raise ConfigError(
                f"{self.config.model.name}: expected an nn.Module, got {type(made).__name__}."
            )
        return made.to(self.config.device or "cpu")

    def batches(self, seed: int) -> Any:
        """Training batches in the order of a seed."""
        train = self.data["train"]
        if _is_loader(train):
            return train
        return Batches(
            train,
            batch_size=self.config.train.batch_size,
            seed=seed,
            transform=self.data.get("transform"),
        )

    def threads(self) -> int:
        """As many as the configuration says, or as are fastest for a training step."""
        if self.config.threads != "auto":
            return self.config.threads
        if self.surface.device.type != "cpu":
            return torch.get_num_threads()
        batch = next(iter(self.batches(0)))
        return best_threads(self.model(0), self.task, batch)

    def _task(self) -> Task:
        named = self.config.task
        task = _TASKS[named]() if isinstance(named, str) else named.call()
        if not isinstance(task, Task):
            raise ConfigError(f"task: expected a lowland Task, got {type(task).__name__}.")
        return task

    def _loader(self, data: Any) -> Any:
        if _is_loader(data):
            return data
        return Batches(data, batch_size=self.config.eval_batch_size, shuffle=False)


def _is_loader(data: Any) -> bool:
    """Whether `data` gives batches: neither tensors nor something to index."""
    if isinstance(data, torch.Tensor | tuple | Mapping):
        return False
    indexed = hasattr(data, "__getitem__") and not isinstance(data, list)
    return hasattr(data, "__iter__") and not indexed
