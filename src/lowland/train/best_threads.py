"""How many threads a training step is fastest on."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from lowland.core import Task
from lowland.core.data import move
from lowland.core.model_copy import private_copy

MIN_SPEEDUP = 1.3  # of several threads over one


def best_threads(
    model: nn.Module,
    task: Task,
    batch: Any,
    *,
    autocast: bool | str | torch.dtype | None = None,
    channels_last: bool = False,
    repeats: int = 5,
) -> int:
    """1, or the number that torch uses now where a training step is clearly faster on them.

    Clearly, because small tensors run many times slower on two threads than on one as soon as a
    neighbour keeps a core busy, while large ones lose a factor of two at most on one. Results
    depend on the number of threads in their last bits, so choose it once a run.
    `autocast` and `channels_last`: as the run trains, see `sgd`.

    >>> from lowland.core import Regression
    >>> batch = (torch.zeros(4, 1), torch.zeros(4, 1))
    >>> best_threads(nn.Linear(1, 1), Regression(noise_variance=1.0), batch) >= 1
    True
    """
    most = torch.get_num_threads()
    if most == 1 or next(model.parameters()).device.type != "cpu":
        return most
    model = private_copy(model).train()  # the user's gradients and statistics do not change
    if channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    task = task.for_model(model)
    parts = move(task.parts(batch), torch.device("cpu"), channels_last=channels_last)
    args, kwargs, target = parts
    dtype = autocast if isinstance(autocast, torch.dtype) else None

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        fastest = float("inf")
        for _ in range(repeats):
            start = time.perf_counter()
            with torch.autocast("cpu", dtype, enabled=bool(autocast)):
                output = task.output(model(*args, **kwargs))
            task.nll(output, target).mean().backward()
            fastest = min(fastest, time.perf_counter() - start)
        return fastest

    with torch.random.fork_rng(devices=[]):
        try:
            seconds(most)  # the first pass warms up
            return most if seconds(1) > MIN_SPEEDUP * seconds(most) else 1
        finally:
            torch.set_num_threads(most)
