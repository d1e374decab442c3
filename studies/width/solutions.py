"""The solutions that are compared: SGD, whose learning rate falls, and SWA at a constant one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from network import TASK, Split, StridedNet

import lowland as ll
from lowland.records import TrainingLog

METHODS = ("SGD", "SWA")


@dataclass(frozen=True)
class Training:
    """Both methods have the same first half: the same order of examples, the same learning rate."""

    epochs: int = 40
    batch: int = 128
    lr: float = 0.05
    weight_decay: float = 5e-4


def train(method: str, split: Split, run: Path, training: Training, seed: int) -> TrainingLog:
    """Trains and stores one iterate an epoch of the second half in the folder `run`.

    SGD: the learning rate is constant for half of the epochs and falls to a hundredth of it. SWA:
    it is constant; the mean of the iterates is the solution.
    """
    shutil.rmtree(run, ignore_errors=True)  # of a training that was stopped
    torch.manual_seed(seed)
    model = StridedNet()
    data = ll.Batches(split, batch_size=training.batch, seed=seed)
    steps = training.epochs * len(data)
    trajectory = ll.Trajectory.create(run, ll.ParamLayout(model))
    return ll.sgd(
        model,
        TASK,
        data,
        epochs=training.epochs,
        optimizer=lambda parameters: torch.optim.SGD(
            parameters, lr=training.lr, momentum=0.9, weight_decay=training.weight_decay
        ),
        schedule=lambda optimizer: (
            ll.DecaySchedule(optimizer, total=steps)
            if method == "SGD"
            else ll.ConstantSchedule(optimizer)
        ),
        collectors=[
            ll.Collector(trajectory, when=ll.Every(len(data), total=steps, start=0.5)),
        ],
        seed=seed,
    )
