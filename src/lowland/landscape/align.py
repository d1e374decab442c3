"""Permutations of hidden units that bring two minima into one basin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lowland.core import ParamLayout, Point
from lowland.core.layout import Where, clean
from lowland.errors import ConfigError, LayoutError
from lowland.landscape.matching import match, permuted
from lowland.landscape.trace import Groups, units_of

Weights = TypeVar("Weights", Tensor, Point)


def align(
    model: nn.Module,
    w0: Tensor | Point,
    w1: Weights,
    *,
    where: Where = None,
    inputs: Any = None,
    restarts: int = 0,
    iterations: int = 100,
    seed: int = 0,
) -> Weights:
    return weight_matching(
        model,
        w0,
        w1,
        where=where,
        inputs=inputs,
        restarts=restarts,
        iterations=iterations,
        seed=seed,
    ).apply(w1)


def weight_matching(
    model: nn.Module,
    w0: Tensor | Point,
    w1: Tensor | Point,
    *,
    where: Where = None,
    inputs: Any = None,
    restarts: int = 0,
    iterations: int = 100,
    seed: int = 0,
) -> Alignment:
    if restarts < 0 or iterations < 1:
        raise ConfigError(
            f"expected restarts >= 0 and iterations >= 1, got restarts={restarts}, "
            f"iterations={iterations}."
        )
    layout = ParamLayout(model, where=where)
    ends = []
    for name, w in (("w0", w0), ("w1", w1)):
        weights = w.weights if isinstance(w, Point) else w
        layout.check(weights, flat=True)
        layout.require_finite(weights, what=name)
        ends.append(weights.detach())
    target, source = ends
    groups = units_of(model, layout, inputs)
    found = match(
        groups,
        layout,
        target.to(source.device),
        source,
        restarts=restarts,
        iterations=iterations,
        seed=seed,
    )
    before = float(layout.inner(target.to(source.device), source))
    return Alignment(layout, groups, tuple(found.order), before, before + found.gain, found.sweeps)


@dataclass(frozen=True)
class Alignment:
    layout: ParamLayout
    groups: Groups
    order: tuple[Tensor, ...]
    before: float
    after: float
    sweeps: int

    def apply(self, w: Weights) -> Weights:
        point = w if isinstance(w, Point) else Point(w)
        self.layout.check(point.weights, flat=True)
        moved = point.weights.detach().clone()
        order = list(self.order)
        for name, view in self.layout.unflatten(moved).items():
            if name in self.groups.parameters:
                place = self.groups.parameters[name]
                view.copy_(permuted(view, place, order).reshape(view.shape))
        if not isinstance(w, Point):
            return moved
        buffers = w.buffers
        if buffers is not None:
            buffers = dict(clean(buffers))
            for name, place in self.groups.buffers.items():
                if name in buffers:
                    buffers[name] = permuted(buffers[name], place, order).reshape(buffers[name].shape)
        return Point(moved, buffers)
