"""Alignment: permutations of hidden units that bring two minima into one basin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from lowland import checks
from lowland.alignment.matching import match, permute
from lowland.alignment.trace import Groups, unit_groups
from lowland.core import ParamLayout, Point
from lowland.core.names import Where, clean
from lowland.errors import LayoutError

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
    modulo permutation symmetries". Permuting the units of a layer together with their incoming and
    outgoing weights does not change the function, so two independent minima may be the same basin
    up to a permutation. After alignment the loss on the line between them,
    `ll.Line(w0, ll.align(model, w0, w1))`, rises less. The same \(\pi\) minimises the distance
    \(|w_0 - \pi(w_1)|\).

    Each layer in turn, in random order, gets the best permutation given the others, by a linear
    assignment, until no layer changes. There are two starts: the present order, and an order built
    inward from inputs and outputs, which recovers a permuted copy. The result is the better of the
    two local maxima.

    `weight_matching` describes how units are traced and which operations are supported.

    Args:
        model: any module; `w0` and `w1` are weights of it, its own values are not used.
        w0: the weights to align with. w1: the weights to align; the BatchNorm statistics of a
            `Point` are permuted, too.
        where: which parameters are part of w, see `ParamLayout`; units of other parameters stay.
        inputs: a batch for the model: a tensor, a tuple of arguments or a dict of keyword
            arguments; None: zeros of a shape that suits its first layer.
        restarts: further starts, from random orders: twenty of them raised the inner product of
            two PreResNet-20 by up to two percent, and that of MLPs by a thousandth.
        iterations: passes over the layers at most, for each start.
        seed: for random orders of layers and of units.

    Returns:
        A copy of `w1`, permuted: a tensor, or a `Point` for a `Point`. A surface re-estimates the
        statistics of BatchNorm at every point by default, also between the two; for networks with
        BatchNorm that is what REPAIR does (Jordan et al. 2023).

    Raises:
        LayoutError: weights of another model. NonFiniteError: NaN in either. ConfigError: a model
            with an unsupported operation, such as fused attention (the message names the module),
            or without hidden units. LowlandError: scipy is missing.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False))
    >>> w0 = torch.tensor([1.0, 2, 3, 4, 5, 6] + [7.0, 8, 9])
    >>> w1 = torch.tensor([5.0, 6, 1, 2, 3, 4] + [9.0, 7, 8])  # its units in another order
    >>> torch.equal(align(net, w0, w1), w0)
    True
    """
    alignment = weight_matching(
        model,
        w0,
        w1,
        where=where,
        inputs=inputs,
        restarts=restarts,
        iterations=iterations,
        seed=seed,
    )
    return alignment.apply(w1)


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
    """The permutations that `align` applies.

    Groups of units are traced through one forward pass in evaluation mode, operation by operation.
    Supported are linear and convolutional layers (also depthwise), BatchNorm, LayerNorm and
    InstanceNorm, elementwise operations, pooling, reshapes, sums and means, and embeddings. The
    terms of a residual sum form one group; flattened images are permuted by channel; tied
    parameters are permuted together. These stay: inputs, outputs, frozen parameters, units that are
    sliced, concatenated or padded, and parameters that evaluation mode does not use. Unsupported
    operations (fused attention, LSTM, GroupNorm, grouped convolutions) raise an error. The function
    in evaluation mode does not change.

    Args:
        model, w0, w1, where, inputs, restarts, iterations, seed: see `align`.

    Raises:
        LowlandError: as `align`.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> w = torch.arange(13.0)
    >>> alignment = weight_matching(net, w, w)
    >>> alignment, alignment.order
    (Alignment(groups=1, units=3, inner=650.0 -> 650.0), (tensor([0, 1, 2]),))
    """
    restarts = checks.whole("restarts", restarts, least=0)
    iterations = checks.whole("iterations", iterations, least=1)
    seed = checks.seed(seed)
    layout = ParamLayout(model, where=where)
    source = _check_weights(layout, w1, "w1")
    target = _check_weights(layout, w0, "w0").to(source.device)
    groups = unit_groups(model, layout, inputs)
    matching = match(
        groups,
        layout,
        target,
        source,
        restarts=restarts,
        iterations=iterations,
        seed=seed,
    )
    before = float(layout.inner(target, source))
    after = before + matching.gain
    return Alignment(layout, groups, tuple(matching.order), before, after, matching.sweeps)


@dataclass(frozen=True, repr=False)
class Alignment:
    """An order for each group of hidden units, and the inner products before and after.

    Attributes:
        layout: the layout of the weights. groups: the groups of units, with their tensors' names.
        order: for each group, the unit of w1 that comes i-th: (n,) integers.
        before, after: the inner product of w0 with w1, and with w1 in the new order.
        sweeps: passes over the groups from the best start.
    """

    layout: ParamLayout
    groups: Groups
    order: tuple[Tensor, ...]
    before: float
    after: float
    sweeps: int

    def apply(self, w: Weights) -> Weights:
        """A copy of these weights with their units in the new order, buffers included.

        Raises:
            LayoutError: weights or buffers of another model.
        """
        point = w if isinstance(w, Point) else Point(w)
        self.layout.check(point.weights, flat=True)
        weights = point.weights.detach().clone()
        views = self.layout.unflatten(weights)
        for name, place in self.groups.parameters.items():
            view = views[name]
            view.copy_(permute(view, place, self.order).reshape(view.shape))
        if not isinstance(w, Point):
            return weights
        return Point(weights, self._permuted_buffers(point.buffers))

    def _permuted_buffers(self, buffers: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
        if buffers is None:
            return None
        out = dict(clean(buffers))
        places = self.groups.buffers
        for name in [name for name in places if name in out]:
            value = out[name]
            if value.numel() != places[name].size:
                raise LayoutError(
                    f"the buffers come from another model: {name} expected {places[name].size} "
                    f"values, got {tuple(value.shape)}."
                )
            out[name] = permute(value, places[name], self.order).reshape(value.shape)
        if out and places and not places.keys() & out.keys():
            raise LayoutError(
                f"the buffers come from another model: expected {next(iter(places))}, got "
                f"{next(iter(out))}."
            )
        return out

    def __repr__(self) -> str:
        return (
            f"Alignment(groups={len(self.order)}, units={sum(self.groups.sizes)}, "
            f"inner={self.before:.6} -> {self.after:.6})"
        )


def _check_weights(layout: ParamLayout, w: Tensor | Point, name: str) -> Tensor:
    weights = w.weights if isinstance(w, Point) else w
    layout.check(weights, flat=True)
    layout.require_finite(weights, what=name)
    return weights.detach()
