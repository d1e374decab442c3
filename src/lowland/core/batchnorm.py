r"""Re-estimation of the statistics of BatchNorm and tracked InstanceNorm layers for given weights.

A BatchNorm layer needs the mean and variance, over the data, of what enters it. Those of a trained
network do not fit an average of networks, or any other point of weight space: they are computed
anew from fixed examples. Two ways:

- *batch*: one pass in which BatchNorm layers normalise by their own batch, as in training; what
  enters each layer is pooled within and between batches. The papers' protocol (Izmailov et al.
  2018); in all layers but the first it depends on how examples are batched.
- *exact*: the result of "batch" when all examples are one batch: each layer's input when all
  layers before it normalise by the moments of all examples. Where they do not fit in memory at
  once, passes in evaluation mode are repeated, each with the moments of the pass before it: after
  k passes the layers of depth k have their final ones, so that there is one pass a depth and no
  graph to trace.

InstanceNorm with `track_running_stats` normalises each instance by itself in training and by
statistics in evaluation: the means over instances of their means and unbiased variances, which
do not depend on batches. While statistics are estimated it normalises as in training, as torch's
own running statistics are estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from lowland.core.names import clean_names
from lowland.errors import DataError

Buffers = dict[str, Tensor]
_CHUNK = 1 << 18  # values that are read together: in float32 half of a core's cache
_MAX_PASSES = 100  # passes at most for layers that are called more than once
_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
# values a channel, mean (C,), biased variance (C,); of InstanceNorm: instances, their mean mean and
# mean unbiased variance
Moments = tuple[int, Tensor, Tensor]


def norm_layers(model: nn.Module) -> dict[str, _NormBase]:
    """The layers that keep statistics of their inputs, by name; frozen ones are left alone.

    Frozen means: in evaluation mode inside a model in training mode, as fine-tuning does.
    """
    return {
        name: module
        for name, module in all_norm_layers(model).items()
        if module.training or not model.training
    }


def all_norm_layers(model: nn.Module) -> dict[str, _NormBase]:
    """The layers that keep statistics, frozen ones too, without wrappers' prefixes."""
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _NormBase) and module.running_mean is not None
    }
    short = clean_names(layers)
    return {short[name]: module for name, module in layers.items()}


def statistics_names(layers: Iterable[str]) -> list[str]:
    """The names of the buffers of layers with these names.

    >>> statistics_names(["bn"])
    ['bn.running_mean', 'bn.running_var', 'bn.num_batches_tracked']
    """
    ends = ("running_mean", "running_var", "num_batches_tracked")
    return [f"{name}.{end}" if name else end for name in layers for end in ends]


@contextmanager
def record_moments(
    layers: dict[str, _NormBase], *, use: bool = False
) -> Iterator[dict[str, list[Moments]]]:
    """Records the moments of what enters each layer while the context is open.

    `use`: layers in evaluation mode normalise by them, as they would in training mode.
    """
    seen: dict[str, list[Moments]] = {name: [] for name in layers}
    keep_graph = torch.is_grad_enabled()  # models that differentiate switch gradients on inside

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def record(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["input"]
            instances = isinstance(module, _InstanceNorm)
            x = x if keep_graph else x.detach()
            new = instance_moments(module, x) if instances else moments(x)
            seen[name].append(new)
            if use and not instances:
                module.running_mean.copy_(new[1])
                module.running_var.copy_(new[2])

        return record

    with ExitStack() as hooks:
        for name, layer in layers.items():
            handle = layer.register_forward_pre_hook(hook(name), with_kwargs=True)
            hooks.callback(handle.remove)
        yield seen


def moments(x: Tensor) -> Moments:  # x: (B, C, ...)
    """Count, mean and biased variance a channel.

    Chunk by chunk, each small enough to stay in the cache for both passes, then pooled in float64:
    `torch.var_mean` takes six times as long over 4,096 images in channels_last memory.
    """
    size = max(1, _CHUNK * x.shape[0] // max(1, x.numel()))
    parts = [_two_passes(part) for part in x.split(size)]
    if len(parts) == 1:
        return parts[0]
    return x.numel() // x.shape[1], *pooled(parts, correction=0)


def _two_passes(x: Tensor) -> Moments:
    flat = x.movedim(1, -1).reshape(
        -1, x.shape[1]
    )  # (values a channel, C); a view in channels_last
    narrow = flat.dtype not in (torch.float32, torch.float64)
    if narrow:
        flat = flat.float()
    mean = flat.mean(0)
    if torch.is_grad_enabled():
        return len(flat), mean, (flat - mean).square().mean(0)
    # in place, which allocates nothing: two to four times faster
    apart = flat.sub_(mean) if narrow else flat - mean
    return len(flat), mean, apart.mul_(apart).mean(0)  # square_ cannot be mapped over


def instance_moments(layer: _InstanceNorm, x: Tensor) -> Moments:  # x: (B, C, ...) or (C, ...)
    """Instances, and the means over them of their means and unbiased variances a channel."""
    if x.ndim == layer._get_no_batch_dim():
        x = x.unsqueeze(0)
    flat = x.flatten(2)  # (B, C, values)
    if flat.dtype not in (torch.float32, torch.float64):
        flat = flat.float()
    mean = flat.mean(2)
    square = (flat - mean[..., None]).square().sum(2) / max(flat.shape[2] - 1, 1)
    return len(flat), mean.mean(0), square.mean(0)


def pooled(parts: list[Moments], *, correction: int = 1) -> tuple[Tensor, Tensor]:
    """Mean and variance, (C,) float64, of the union of batches; unbiased with `correction=1`.

    Variance within batches plus variance of their means, weighted by size.

    >>> a, b = torch.zeros(2, 1), torch.ones(6, 1)
    >>> mean, variance = pooled([moments(a), moments(b)])
    >>> mean, bool(torch.allclose(variance, torch.cat([a, b]).double().var(0)))
    (tensor([0.7500], dtype=torch.float64), True)
    """
    total = sum(count for count, _, _ in parts)
    if total < 2:
        raise DataError("BatchNorm statistics need at least two examples; raise bn_rows.")
    mean = sum((m.double() * n for n, m, _ in parts), start=torch.zeros(())) / total
    scatter = sum(
        ((v.double() + (m.double() - mean) ** 2) * n for n, m, v in parts), start=torch.zeros(())
    )
    return mean, scatter / (total - correction)


def pooled_instances(parts: list[Moments]) -> tuple[Tensor, Tensor]:
    """Mean and variance, (C,) float64: the means over the instances of all batches."""
    total = sum(count for count, _, _ in parts)
    mean = sum((m.double() * n for n, m, _ in parts), start=torch.zeros(())) / total
    return mean, sum((v.double() * n for n, _, v in parts), start=torch.zeros(())) / total


def running_statistics(
    layers: dict[str, _NormBase], seen: dict[str, list[Moments]], *, correction: int = 1
) -> Buffers:
    """Running statistics by buffer name, in the layers' dtypes; layers not passed are left out."""
    out: Buffers = {}
    for name, parts in seen.items():
        if parts:
            if isinstance(layers[name], _InstanceNorm):
                mean, variance = pooled_instances(parts)
            else:
                mean, variance = pooled(parts, correction=correction)
            dtype = layers[name].running_mean.dtype  # type: ignore[union-attr]
            mean_name, variance_name, _ = statistics_names([name])
            out |= {mean_name: mean.to(dtype), variance_name: variance.to(dtype)}
    return out


def from_one_pass(
    layers: dict[str, _NormBase], forward: Callable[[Any], Any], batches: Iterable[Any]
) -> Buffers:
    """Statistics from one pass: `forward(batch)` runs the model with BN layers in training mode.

    Pure in what `forward` closes over: it may be differentiated and vmapped.
    """
    with record_moments(layers) as seen:
        for batch in batches:
            forward(batch)
        return running_statistics(layers, seen)


def from_one_batch(
    layers: dict[str, _NormBase], forward: Callable[[Buffers], Any], start: Buffers
) -> Buffers:
    """Exact statistics from one batch: `forward(buffers)` runs the model in evaluation mode.

    Each layer is given the moments of what enters it just before it normalises. In training mode
    torch would look for them a second time, and more slowly.
    """
    with record_moments(layers, use=True) as seen:
        forward({name: buffer.clone() for name, buffer in start.items()})
        return running_statistics(layers, seen)


def refuse_one_example(error: Exception) -> None:
    """Raises `DataError` where a layer in training mode was given one value a channel."""
    if "more than 1 value per channel" in str(error):
        raise DataError(
            "a batch has one example, which BatchNorm cannot normalise by itself in training mode; "
            "leave a smaller last batch out with drop_last=True (in a configuration "
            "`train.drop_last`), or choose another batch size."
        ) from error


def accept_statistics(layers: Iterable[_NormBase]) -> bool:
    """Whether BatchNorm layers normalise alike by given statistics and by their own batch's:
    torch's kinds, with statistics as precise as what is found."""
    return all(
        type(layer) in _KINDS
        and layer.running_mean is not None
        and layer.running_mean.dtype in (torch.float32, torch.float64)
        for layer in layers
        if not isinstance(layer, _InstanceNorm)
    )


def layers_without_statistics(
    layers: dict[str, _NormBase], buffers: Mapping[str, Tensor]
) -> list[str]:
    """The layers whose statistics among `buffers` are still those that a new layer has."""
    names = []
    for name in layers:
        mean, variance, count = (buffers.get(one) for one in statistics_names([name]))
        if mean is not None and variance is not None:
            new = bool((mean == 0).all() and (variance == 1).all())
            if new and (count is None or int(count) == 0):
                names.append(name)
    return names


def from_passes(
    layers: dict[str, _NormBase],
    forward: Callable[[Any, Buffers], Any],
    batches: list[Any],
    start: Buffers,
) -> Buffers:
    """Exact statistics from passes in evaluation mode: `forward(batch, buffers)`."""
    buffers, passes, most = start, 0, len(layers)
    while passes < most:
        passes += 1
        with record_moments(layers) as seen:
            for batch in batches:
                forward(batch, buffers)
        # biased, for that is what a layer in training mode divides by
        new = running_statistics(layers, seen, correction=0)
        if any(len(parts) > len(batches) for parts in seen.values()):
            # a layer that is called twice feeds its own statistics: passes go on until they settle
            most = _MAX_PASSES
        if all(torch.allclose(new[name], buffers[name], rtol=1e-7) for name in new):
            break
        buffers = {**buffers, **new}
    return running_statistics(layers, seen)


@contextmanager
def differentiable(layers: dict[str, _NormBase], statistics: Buffers) -> Iterator[None]:
    """Lets gradients reach `statistics` through layers in evaluation mode, which use their values.

    torch has no derivative by running statistics. The input x of a layer becomes s x + (m - s m')
    with s = sqrt((v + eps) / (v' + eps)), where m', v' are the statistics and m, v their values
    held constant: that is x itself, bit by bit, with the derivative that the layer lacks.
    """

    def hook(mean: Tensor, variance: Tensor) -> Callable[[nn.Module, tuple[Any, ...]], Any]:
        def shift(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            x, *rest = args
            scale = ((variance.detach() + module.eps) / (variance + module.eps)).sqrt()  # type: ignore[operator]
            offset = mean.detach() - scale * mean
            shape = (1, -1) + (1,) * (x.ndim - 2)
            return (x * scale.view(shape).to(x.dtype) + offset.view(shape).to(x.dtype), *rest)

        return shift

    with ExitStack() as hooks:
        for name, layer in layers.items():
            mean, variance, _ = statistics_names([name])
            if mean in statistics:
                shift = hook(statistics[mean], statistics[variance])
                hooks.callback(layer.register_forward_pre_hook(shift).remove)
        yield
