"""Pairs of layers of which one can be multiplied by a number and the next divided by it.

With ReLU between, such a change leaves the function as it is, so that a measure that changes with
it says nothing about the function (Dinh et al. 2017). The tracer of `align` finds which parameters
list the same hidden units. Whether the units may be scaled, too, is then tried on examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from lowland.alignment.trace import Groups, unit_groups
from lowland.core import Batch, LossSurface, ParamLayout, Point
from lowland.core.data import first_examples
from lowland.errors import ConfigError

FACTORS = (0.5, 2.0)  # powers of two, by which nothing is rounded
_EXAMPLES = 4  # on which outputs are compared
_TRIALS = 100  # pairs at most: a residual group has many layers
_TOLERANCE = 1e-4  # of the largest output


@dataclass(frozen=True)
class Rescaling:
    """Parameters by name: `up` are multiplied by a factor, `down` divided by it.

    >>> layout = ParamLayout(torch.nn.Linear(1, 1))
    >>> Rescaling(("weight",), ("bias",)).apply(layout, torch.tensor([3.0, 4.0]), 2.0)
    tensor([6., 2.])
    """

    up: tuple[str, ...]
    down: tuple[str, ...]

    def apply(self, layout: ParamLayout, w: Tensor, factor: float) -> Tensor:  # (P,) -> (P,)
        """The rescaled weights."""
        w = w.detach().clone()
        views = layout.unflatten(w)
        for names, number in ((self.up, factor), (self.down, 1 / factor)):
            for name in names:
                views[name] *= number
        return w


@torch.no_grad()
def find_rescaling(surface: LossSurface, point: Point, batch: Batch) -> Rescaling | None:
    """A rescaling that does not change the outputs for a batch at a point with the statistics
    that belong to it; None: there is none, or the tracer does not know the model's operations."""
    args, kwargs = first_examples((batch.args, batch.kwargs), _EXAMPLES)
    if args and kwargs:
        return None
    try:
        groups = unit_groups(surface.template.module, surface.layout, args or kwargs)
    except (ConfigError, RuntimeError):
        return None

    def outputs(weights: Tensor) -> Tensor:
        parameters = surface.layout.materialise(weights)
        return surface.forward(parameters, point.buffers or {}, args, kwargs)

    expected = outputs(point.weights)
    most = _TOLERANCE * expected.abs().max()
    for rescaling in islice(_candidates(groups, surface.layout), _TRIALS):
        rescaled = (rescaling.apply(surface.layout, point.weights, f) for f in FACTORS)
        if all(bool(((outputs(w) - expected).abs() <= most).all()) for w in rescaled):
            return rescaling
    return None


def _candidates(groups: Groups, layout: ParamLayout) -> Iterator[Rescaling]:
    """Of each group, all layers whose outputs are its units, with all whose inputs are; then pairs
    of one layer each, as BatchNorm does not pass a scale on. Small groups come first."""
    shapes = {entry.name: entry.shape for entry in layout.entries}
    pairs = []
    for group in range(len(groups.sizes)):
        names = [name for name, place in groups.parameters.items() if group in place.groups]
        up = [name for name in names if _has_outputs(groups, name, shapes[name], group)]
        pairs.append((up, [name for name in names if name not in up]))
    for up, down in sorted(pairs, key=lambda pair: len(pair[0]) * len(pair[1])):
        if not up or not down:
            continue
        yield Rescaling(tuple(up), tuple(down))
        # the last layer is the one that the units come from, such as BatchNorm
        for layer in reversed(dict.fromkeys(name.rpartition(".")[0] for name in up)):
            own = tuple(name for name in up if name.rpartition(".")[0] == layer)
            for other in down:
                yield Rescaling(own, (other,))


def _has_outputs(groups: Groups, name: str, shape: tuple[int, ...], group: int) -> bool:
    """Whether the first dimension of a parameter lists the units of the group."""
    place, size = groups.parameters[name], 1
    for factor, number in zip(place.shape, place.groups, strict=True):
        if size >= shape[0]:
            return False
        if number == group:
            return True
        size *= factor
    return False
