"""The gradient of the loss over all examples, through the statistics that depend on w."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lowland.core import batchnorm as bn
from lowland.core.buffers import Buffers
from lowland.core.call import check_batch
from lowland.core.data import ReplayableLoader
from lowland.core.options import EvalOptions
from lowland.core.point import Point

if TYPE_CHECKING:
    from lowland.core.surface import LossSurface


@torch.enable_grad()
def full_gradient(
    surface: LossSurface, point: Point, data: ReplayableLoader, options: EvalOptions
) -> tuple[Tensor, Tensor]:
    """The loss and the gradient (P,) of L(w) over all examples, in evaluation mode; it flows
    through the refreshed BatchNorm statistics too, since they are a function of w."""
    leaf = point.weights.detach().clone().requires_grad_()
    stats: Buffers = {}
    refreshes = surface.template.layers and surface.refreshes(point, options)
    if refreshes:
        surface.statistics.require_resident()  # before the work rather than after it
    fixed = surface.buffers_for(point, options)
    if refreshes:
        names = bn.statistics_names(surface.template.layers)
        own = [n for n in names if n in fixed and fixed[n].is_floating_point()]
        stats = {name: fixed[name].clone().requires_grad_() for name in own}
    total = torch.zeros((), dtype=torch.float64, device=surface.device)
    gradient = torch.zeros_like(leaf)
    into = {name: torch.zeros_like(b) for name, b in stats.items()}
    for batch in data:
        args, kwargs, target = surface.labelled(batch)
        with surface.template.lock, bn.differentiable(surface.template.layers, stats):
            output = surface.forward(surface.layout.materialise(leaf), fixed, args, kwargs)
        check_batch(surface.task, (args, kwargs), output, target)
        loss = surface.task.items_nll(output, target).sum(dtype=torch.float64)
        grads = torch.autograd.grad(loss, [leaf, *stats.values()], allow_unused=True)
        total += loss.detach()
        for into_one, part in zip([gradient, *into.values()], grads, strict=True):
            if part is not None:
                into_one += part
    if stats:
        # the chain rule through statistics(w): one backward pass over the BN examples
        new = surface.statistics.from_resident(surface.layout.materialise(leaf), fixed)
        names = [name for name in stats if name in new]  # without layers that are not called
        outputs, by = [new[name] for name in names], [into[name] for name in names]
        (through,) = torch.autograd.grad(outputs, leaf, by, allow_unused=True)
        if through is not None:
            gradient += through
    return total / data.counted_items, gradient / data.counted_items
