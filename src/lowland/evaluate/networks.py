"""A chunk of weight vectors as networks: what they give for a batch, one by one or all at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lowland.core import LossSurface, Point
from lowland.core.data import nbytes
from lowland.core.options import EvalOptions
from lowland.evaluate.batched import vmapped
from lowland.evaluate.weights import Block

Networks = Callable[[tuple[Any, ...], dict[str, Any]], Tensor]  # (args, kwargs) -> (n, B, ...)
Tensors = dict[str, Tensor]

# bytes of weights and activations of all networks whose BatchNorm statistics are estimated at once:
# these examples are often more than a batch's. A constant, since the bits depend on it
_STATISTICS = 1 << 30


def networks(
    surface: LossSurface, group: Sequence[Point], options: EvalOptions, *, mapped: bool
) -> Networks:
    """A function that gives the outputs (n, B, ...) of a chunk of n points for a batch.

    `mapped`: of all at once, by `torch.func.vmap`, rather than one by one.
    """
    if not mapped:
        return _one_by_one(surface, group, options)
    parameters, buffers = stacked(surface, group, options)
    return partial(vmapped, surface, parameters, buffers)


def _one_by_one(surface: LossSurface, group: Sequence[Point], options: EvalOptions) -> Networks:
    each = [
        (surface.layout.materialise(point.weights), surface.buffers_for(point, options))
        for point in group
    ]

    def outputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        parts = [surface.forward(w, buffers, args, kwargs) for w, buffers in each]
        return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)

    return outputs


def stacked(
    surface: LossSurface, group: Sequence[Point], options: EvalOptions
) -> tuple[Tensors, Tensors]:
    """Parameters and buffers (n, ...) by name: weights that are mapped over need buffers that
    are."""
    rows = group.weights if isinstance(group, Block) else torch.stack([p.weights for p in group])
    parameters = surface.layout.materialise(rows)
    return parameters, _stacked_buffers(surface, group, parameters, options)


def _stacked_buffers(
    surface: LossSurface, group: Sequence[Point], parameters: Tensors, options: EvalOptions
) -> Tensors:
    own = _own_buffers(surface, group)
    by_point = surface.template.spectral or surface.statistics.names
    if not by_point and not surface.has_batchnorm:
        return own
    refreshed = [surface.refreshes(point, options) for point in group]
    if not by_point and not any(refreshed):
        return own
    joined = None if by_point or not all(refreshed) else surface.statistics.resident()
    if joined is None:
        return _stack(surface, [surface.buffers_for(point, options) for point in group])
    most = max(1, _STATISTICS // (8 * surface.layout.size + 32 * nbytes(joined)))
    estimate = torch.func.vmap(surface.statistics.from_resident, chunk_size=most)
    return own | estimate(parameters, own)


def _own_buffers(surface: LossSurface, group: Sequence[Point]) -> Tensors:
    """The buffers (n, ...) that points come with."""
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
