"""A run with everything in it that can be stopped at any event, in this process or by a kill."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import lowland as ll
import lowland.files
from lowland import tensor_files
from lowland.train import sgd, trainer
from lowland.trajectory.journal import JOURNAL

EPOCHS = 3


class Boom(Exception):
    """What the interrupted run dies of."""


class Noisy(Dataset):
    """Examples that are augmented from all three global generators."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        g = torch.Generator().manual_seed(i)
        noise = torch.randn(6) + random.random() + float(np.random.rand())  # noqa: NPY002
        return torch.randn(6, generator=g) + 0.1 * noise, i % 3


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(23, 6, generator=g), torch.randint(3, (23,), generator=g)


def jitter(batch: Any, generator: torch.Generator) -> Any:
    x, y = batch
    return x + 0.1 * torch.randn(x.shape, generator=generator), y


DATA: dict[str, Callable[[], Any]] = {
    "batches": lambda: ll.Batches(rows(), batch_size=5, seed=3, transform=jitter),
    "dataset": lambda: ll.Batches(Noisy(), batch_size=5, seed=3),
    "loader": lambda: DataLoader(Noisy(), batch_size=5, shuffle=True),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
    )


class Run:
    """A training run in a folder: build it again to continue it, as a new process would."""

    def __init__(
        self, folder: Path, data: str = "batches", accumulate: int = 1, **options: Any
    ) -> None:
        self.folder = folder
        self.data = DATA[data]()
        self.options = {"accumulate": accumulate, **options}
        self.model = network()
        layout = ll.ParamLayout(self.model)
        store = folder / "store"
        self.store = (
            ll.Trajectory.open(store, layout=layout)
            if (store / JOURNAL).exists()
            else ll.Trajectory.create(store, layout)
        )
        self.swag, self.ema = ll.SWAG(layout, rank=3), ll.EMA(layout, decay=0.8)
        self.collectors = [
            ll.Collector(self.swag, when=ll.Every(2)),
            ll.Collector(self.store, when=ll.Every(1)),  # ahead of every checkpoint
            ll.Collector(self.ema, when=ll.Every(1)),
        ]

    def __call__(self, event: Callable[[], None] = lambda: None) -> Run:
        def optimizer(parameters: Any) -> torch.optim.Optimizer:
            made = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
            made.register_step_post_hook(lambda *_: event())
            return made

        for collector in self.collectors:
            collector.step = _before(event, collector.step)
        self.log = sgd(
            self.model,
            ll.Classification(),
            self.data,
            epochs=EPOCHS,
            optimizer=optimizer,
            schedule=lambda o: ll.DecaySchedule(o, total=15),
            collectors=self.collectors,
            validate=lambda model: {"norm": float(model[0].weight.norm())},
            checkpoint=self.folder / "run.safetensors",
            checkpoint_steps=2,
            **self.options,
        )
        return self

    def state(self) -> dict[str, Any]:
        """Everything that has to be bit-equal."""
        columns = {k: v for k, v in self.log.columns.items() if k != "seconds"}
        swag = self.swag.state_dict()
        points = [self.store[i] for i in range(len(self.store))]
        return {
            "model": dict(self.model.state_dict()),
            "log": columns,
            "swag": {k: swag[k] for k in ("count", "_mean", "_variance", "_deviations")},
            "ema": self.ema.mean,
            "steps": self.store.steps,
            "store": [{"w": p.weights, **(p.buffers or {})} for p in points],
        }


def _before(event: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        event()
        return function(*args, **kwargs)

    return wrapped


@contextmanager
def watched(event: Callable[[], None]) -> Iterator[None]:
    """Calls `event` at each batch, at the start of each checkpoint, around file replacements."""
    replace = os.replace

    def replacing(*args: Any) -> None:
        event()
        replace(*args)
        event()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "move", _before(event, trainer.move))
        patch.setattr(tensor_files, "save_tree", _before(event, tensor_files.save_tree))
        patch.setattr(lowland.files.os, "replace", replacing)
        yield


class Count:
    """Counts events, and does something at the n-th."""

    def __init__(self, at: int = 0, act: Callable[[], None] = lambda: None) -> None:
        self.count, self.at, self.act = 0, at, act

    def __call__(self) -> None:
        self.count += 1
        if self.count == self.at:
            self.act()


def kill_at(events: dict[Path, int]) -> None:
    """For a process of its own: a run in each folder, in a fork that is killed at its event."""
    torch.set_num_threads(1)
    for folder, at in events.items():
        child = os.fork()
        if child == 0:
            event = Count(at, lambda: os.kill(os.getpid(), signal.SIGKILL))
            with watched(event):
                Run(folder)(event)
            os._exit(1)  # it was not killed
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, folder
