r"""Re-estimation of BatchNorm statistics for given weights.

A BatchNorm layer needs the mean and variance, over the data, of what enters it. Those of a trained
network do not fit an average of networks, or any other point of weight space: they are computed
anew from fixed rows. Two ways:

- *batch*: one pass in which BatchNorm layers normalise by their own batch, as in training; what
  enters each layer is pooled within and between batches. The papers' protocol (Izmailov et al.
  2018); in all layers but the first it depends on how rows fall into batches.
- *exact*: the statistics that evaluation mode itself produces: each layer's input when all layers
  before it use their final statistics. With all rows in one batch, "batch" is exact. Otherwise
  passes in evaluation mode are repeated, each taking the statistics that the one before it gave:
  after k passes the layers of depth k have theirs for good, so that there is one pass a depth and
  no graph to trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lowland.errors import DataError

Buffers = dict[str, Tensor]
Moments = tuple[int, Tensor, Tensor]  # values a channel, mean (C,), biased variance (C,)


def layers_of(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers that keep statistics, by name; frozen ones are left alone.

    Frozen means: in evaluation mode inside a model in training mode, as fine-tuning does.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        and module.running_mean is not None
        and (module.training or not model.training)
    }


@contextmanager
def recording(layers: dict[str, _BatchNorm]) -> Iterator[dict[str, list[Moments]]]:
    """Records the moments of what enters each layer while the context is open."""
    seen: dict[str, list[Moments]] = {name: [] for name in layers}

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def record(module: nn.Module, args: tuple[Any, ...]) -> None:
            seen[name].append(moments(args[0]))

        return record

    handles = [m.register_forward_pre_hook(hook(name)) for name, m in layers.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def moments(x: Tensor) -> Moments:  # x: (B, C, ...)
    """Count, mean and biased variance a channel."""
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()
    over = [d for d in range(x.ndim) if d != 1]
    variance, mean = torch.var_mean(x, over, correction=0)
    return x.numel() // x.shape[1], mean, variance


def pooled(parts: list[Moments]) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance, (C,) float64, of the union of batches.

    Variance within batches plus variance of their means, weighted by size.

    >>> a, b = torch.zeros(2, 1), torch.ones(6, 1)
    >>> mean, variance = pooled([moments(a), moments(b)])
    >>> mean, bool(torch.allclose(variance, torch.cat([a, b]).double().var(0)))
    (tensor([0.7500], dtype=torch.float64), True)
    """
    total = sum(count for count, _, _ in parts)
    if total < 2:
        raise DataError("BatchNorm statistics need at least two rows; raise bn_rows.")
    mean = sum((m.double() * n for n, m, _ in parts), start=torch.zeros(())) / total
    scatter = sum(
        ((v.double() + (m.double() - mean) ** 2) * n for n, m, v in parts), start=torch.zeros(())
    )
    return mean, scatter / (total - 1)


def named(layers: dict[str, _BatchNorm], seen: dict[str, list[Moments]]) -> Buffers:
    """Running statistics by buffer name, in the layers' own dtypes; layers not passed are left out."""
    out: Buffers = {}
    for name, parts in seen.items():
        if parts:
            mean, variance = pooled(parts)
            dtype = layers[name].running_mean.dtype  # type: ignore[union-attr]
            dot = f"{name}." if name else ""
            out[f"{dot}running_mean"] = mean.to(dtype)
            out[f"{dot}running_var"] = variance.to(dtype)
    return out


def one_pass(
    layers: dict[str, _BatchNorm], forward: Callable[[Any], Any], batches: Iterable[Any]
) -> Buffers:
    """Statistics from one pass: `forward(batch)` runs the model with BN layers in training mode.

    Pure in what `forward` closes over: it may be differentiated and vmapped.
    """
    with recording(layers) as seen:
        for batch in batches:
            forward(batch)
        return named(layers, seen)


def fixed_point(
    layers: dict[str, _BatchNorm],
    forward: Callable[[Any, Buffers], Any],
    batches: list[Any],
    start: Buffers,
) -> Buffers:
    """Exact statistics from passes in evaluation mode: `forward(batch, buffers)`."""
    buffers = start
    for _ in range(len(layers)):
        found = one_pass(layers, lambda batch, b=buffers: forward(batch, b), batches)
        if all(torch.equal(found[name], buffers[name]) for name in found):
            break
        buffers = {**buffers, **found}
    return buffers
