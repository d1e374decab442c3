"""A chunk of weight vectors as networks: their outputs for a batch, one by one or all at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lowland.core import LossSurface, Point
from lowland.core.autograd import explain_vmap_errors
from lowland.core.data import nbytes
from lowland.core.options import EvalOptions
from lowland.evaluate.batched_linear import BatchedLinearMode
from lowland.evaluate.weights import Block

Networks = Callable[[tuple[Any, ...], dict[str, Any]], Tensor]  # (args, kwargs) -> (n, B, ...)
Tensors = dict[str, Tensor]

# bytes of weights and activations of all networks whose BatchNorm statistics are estimated at once:
# these examples are often more than a batch's. A constant, since the bits depend on it
_STATISTICS_BYTES = 1 << 30


def networks(
    surface: LossSurface, group: Sequence[Point], options: EvalOptions, *, vmap: bool
) -> Networks:
    """A function that returns the outputs (n, B, ...) of a chunk of n points for a batch.

    `vmap`: all at once, by `torch.func.vmap`, rather than one by one.
    """
    if not vmap:
        return _one_by_one(surface, group, options)
    parameters, buffers = stack_points(surface, group, options)
    return partial(vmap_forward, surface, parameters, buffers)


def _one_by_one(surface: LossSurface, group: Sequence[Point], options: EvalOptions) -> Networks:
    states = [
        (surface.layout.materialise(point.weights), surface.buffers_for(point, options))
        for point in group
    ]

    def outputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        each = [surface.forward(weights, buffers, args, kwargs) for weights, buffers in states]
        return each[0].unsqueeze(0) if len(each) == 1 else torch.stack(each)

    return outputs


def vmap_forward(
    surface: LossSurface,
    parameters: Tensors,  # (n, ...) each
    buffers: Tensors,  # (n, ...) each
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Tensor:
    """Outputs (n, B, ...) of n points at once.

    Raises:
        ConfigError: a model that vmap cannot map over.
    """

    def forward(parameters: Tensors, buffers: Tensors) -> Tensor:
        return surface.forward(parameters, buffers, args, kwargs)

    instead = "leave strategy= out, or take 'points'"
    with explain_vmap_errors(surface.template.module, instead=instead), BatchedLinearMode():
        return torch.func.vmap(forward)(parameters, buffers)


def stack_points(
    surface: LossSurface, group: Sequence[Point], options: EvalOptions
) -> tuple[Tensors, Tensors]:
    """Parameters and buffers (n, ...) by name: weights that are mapped over need buffers that
    are."""
    if isinstance(group, Block):
        weights = group.weights
    else:
        weights = torch.stack([point.weights for point in group])
    parameters = surface.layout.materialise(weights)
    return parameters, _stack_buffers(surface, group, parameters, options)


def _stack_buffers(
    surface: LossSurface, group: Sequence[Point], parameters: Tensors, options: EvalOptions
) -> Tensors:
    own = _own_buffers(surface, group)
    one_by_one = surface.template.spectral or surface.statistics.names
    if not one_by_one and not surface.has_batchnorm:
        return own
    refreshes = [surface.refreshes(point, options) for point in group]
    if not one_by_one and not any(refreshes):
        return own
    batch = None if one_by_one or not all(refreshes) else surface.statistics.resident()
    if batch is None:
        return _stack(surface, [surface.buffers_for(point, options) for point in group])
    chunk = max(1, _STATISTICS_BYTES // (8 * surface.layout.size + 32 * nbytes(batch)))
    estimate = torch.func.vmap(surface.statistics.from_resident, chunk_size=chunk)
    return own | estimate(parameters, own)


def _own_buffers(surface: LossSurface, group: Sequence[Point]) -> Tensors:
    """The buffers (n, ...) that the points themselves have."""
    if isinstance(group, Block):
        return dict(group.buffers or {})
    each = [point.buffers or {} for point in group]
    return _stack(surface, each) if any(each) else {}


def _stack(surface: LossSurface, each: Sequence[Mapping[str, Tensor]]) -> Tensors:
    names = dict.fromkeys(name for buffers in each for name in buffers)
    return {
        name: torch.stack([b[name] if name in b else surface.state[name] for b in each])
        for name in names
    }
