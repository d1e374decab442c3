"""Permutations of hidden units that bring two minima into one basin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from lowland import checks
from lowland.core import ParamLayout, Point
from lowland.core.names import Where, clean
from lowland.errors import LayoutError
from lowland.landscape.matching import match, permuted
from lowland.landscape.trace import Groups, units_of

Weights = TypeVar("Weights", Tensor, Point)


def align(
    model: nn.Module,
    w0: Tensor | Point,  # (P,)
    w1: Weights,  # (P,)
    *,
    where: Where = None,
    inputs: Any = None,
    restarts: int = 0,
    iterations: int = 100,
    seed: int = 0,
) -> Weights:  # (P,)
    r"""\(\pi(w_1)\): the network of \(w_1\), its hidden units in the order \(\pi\) for which the
    inner product \(w_0^T \pi(w_1)\) is largest.

    The weight matching of Ainsworth, Hayase and Srinivasa 2023, "Git Re-Basin: merging models
    modulo permutation symmetries". Units of a layer can change places, with what leads to them and
    from them, and the function stays the same; so two minima that were found independently may be
    one basin seen in two orders, and after alignment the loss on the line between them rises less:
    `ll.Line(w0, ll.align(model, w0, w1))`. The distance \(|w_0 - \pi(w_1)|\) is least there, too.

    Layer after layer, in random order, gets the best permutation given the others, by a linear
    assignment, until none moves. It starts from the order that is there, then from one that is
    built inward from inputs and outputs, which finds a permuted copy again, and keeps the better
    end: a local maximum.

    Which units belong together is found by following one forward pass: see `weight_matching` for
    what can be followed.

    Args:
        model: any module of which `w0` and `w1` are weights; its own do not matter.
        w0: what to align with. w1: what to align; a `Point` takes its BatchNorm statistics along.
        where: which parameters are part of w, see `ParamLayout`; units that touch others stay.
        inputs: a batch that the model takes: a tensor, a tuple of arguments or a dict of named
            ones; None: zeros of a shape that suits its first layer.
        restarts: further starts, from random orders: twenty of them raised the inner product of
            two PreResNet-20 by up to two percent, and that of MLPs by a thousandth.
        iterations: passes over the layers at most, for each start.
        seed: of the orders, of layers and of units.

    Returns:
        A copy of `w1`, permuted: a tensor, or a `Point` for a `Point`. A surface re-estimates the
        statistics of BatchNorm at every point by default, also between the two; for networks with
        BatchNorm that is what REPAIR does (Jordan et al. 2023).

    Raises:
        LayoutError: weights of another model. NonFiniteError: NaN in either. ConfigError: a model
            with an operation that is not known, such as fused attention (it names the module), or
            without hidden units. LowlandError: scipy is missing.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False))
    >>> w0 = torch.tensor([1.0, 2, 3, 4, 5, 6] + [7.0, 8, 9])
    >>> w1 = torch.tensor([5.0, 6, 1, 2, 3, 4] + [9.0, 7, 8])  # its units in another order
    >>> torch.equal(align(net, w0, w1), w0)
    True
    """
    found = weight_matching(
        model,
        w0,
        w1,
        where=where,
        inputs=inputs,
        restarts=restarts,
        iterations=iterations,
        seed=seed,
    )
    return found.apply(w1)


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
    """What `align` finds, rather than what it makes of it.

    Units that belong together are found by following the dimensions of tensors through one forward
    pass in evaluation mode, operation by operation: linear and convolutional layers (depthwise
    ones too), BatchNorm, LayerNorm and InstanceNorm, whatever acts value by value, pooling,
    reshapes, sums and means, embeddings; a residual sum makes one group of both its terms, and
    flattened images move by channels. Tied parameters move together. Units that are sliced or
    concatenated stay, as do inputs, outputs and frozen parameters; shortcuts that pad channels fix
    theirs. What is kept is the function in evaluation mode, and parameters that it does without
    stay. Fused attention, LSTM, GroupNorm, grouped convolutions and what else is not known are
    refused.

    Args:
        model, w0, w1, where, inputs, restarts, iterations, seed: see `align`.

    Raises:
        LowlandError: as `align`.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> w = torch.arange(13.0)
    >>> found = weight_matching(net, w, w)
    >>> found, found.order
    (Alignment(groups=1, units=3, inner=650.0 -> 650.0), (tensor([0, 1, 2]),))
    """
    restarts = checks.whole("restarts", restarts, least=0)
    iterations = checks.whole("iterations", iterations, least=1)
    seed = checks.seed(seed)
    layout = ParamLayout(model, where=where)
    source = _checked(layout, w1, "w1")
    target = _checked(layout, w0, "w0").to(source.device)
    groups = units_of(model, layout, inputs)
    found = match(
        groups,
        layout,
        target,
        source,
        restarts=restarts,
        iterations=iterations,
        seed=seed,
    )
    before = float(layout.inner(target, source))
    return Alignment(layout, groups, tuple(found.order), before, before + found.gain, found.sweeps)


@dataclass(frozen=True, repr=False)
class Alignment:
    """An order for each group of hidden units, and what it is worth.

    Attributes:
        layout: of the weights. groups: the groups of units, with the names of their tensors.
        order: for each group, the unit of w1 that comes i-th: (n,) integers.
        before, after: the inner product of w0 with w1, and with w1 in the new order.
        sweeps: passes over the groups, from the start that came out best.
    """

    layout: ParamLayout
    groups: Groups
    order: tuple[Tensor, ...]
    before: float
    after: float
    sweeps: int

    def apply(self, w: Weights) -> Weights:
        """A copy of these weights with their units in the new order; buffers go along.

        Raises:
            LayoutError: weights or buffers of another model.
        """
        point = w if isinstance(w, Point) else Point(w)
        self.layout.check(point.weights, flat=True)
        moved = point.weights.detach().clone()
        views = self.layout.unflatten(moved)
        for name, place in self.groups.parameters.items():
            view = views[name]
            view.copy_(permuted(view, place, self.order).reshape(view.shape))
        return Point(moved, self._buffers(point.buffers)) if isinstance(w, Point) else moved

    def _buffers(self, buffers: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
        if buffers is None:
            return None
        moved = dict(clean(buffers))
        places = self.groups.buffers
        for name in places.keys() & moved.keys():
            value = moved[name]
            if value.numel() != places[name].size:
                raise LayoutError(
                    f"the buffers come from another model: {name} expected {places[name].size} "
                    f"values, got {tuple(value.shape)}."
                )
            moved[name] = permuted(value, places[name], self.order).reshape(value.shape)
        if moved and places and not places.keys() & moved.keys():
            raise LayoutError(
                f"the buffers come from another model: expected {next(iter(places))}, got "
                f"{next(iter(moved))}."
            )
        return moved

    def __repr__(self) -> str:
        return (
            f"Alignment(groups={len(self.order)}, units={sum(self.groups.sizes)}, "
            f"inner={self.before:.6} -> {self.after:.6})"
        )


def _checked(layout: ParamLayout, w: Tensor | Point, what: str) -> Tensor:
    weights = w.weights if isinstance(w, Point) else w
    layout.check(weights, flat=True)
    layout.require_finite(weights, what=what)
    return weights.detach()
