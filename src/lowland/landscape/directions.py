"""Random directions, normalised filter by filter to the norms of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from lowland import checks
from lowland.core import LossSurface, ParamLayout, Point
from lowland.core.model_copy import unwrap
from lowland.core.names import clean_names
from lowland.posteriors.noise import normal

NORMALISE = ("filter", "layer", None)


def directions(
    model: LossSurface | nn.Module,
    w: Tensor | Point,
    *,
    n: int = 2,
    seed: int = 0,
    normalise: str | None = "filter",
) -> Tensor:
    r"""\(d_{ij} \leftarrow d_{ij}\, \|w_{ij}\| / \|d_{ij}\|\): Gaussian, layer i, filter j of it.

    Filter normalisation (Li et al. 2018): a unit step is as large for each filter as the filter
    itself, so that pictures of networks of different scales are comparable. A filter is the weights
    of one output: a row of a matrix or embedding, a slice of a convolution, along dimension 1 of
    a transposed one (by group). Biases, scales of norms and other one-dimensional parameters do not
    move.

    `Plane(w, *directions(surface, w))` is the plane of two such directions around w.

    Args:
        model: the model of w. w: (P,), or a `Point`.
        n: their number. seed: direction i is a function of (seed, i).
        normalise: "filter"; "layer": each parameter as a whole has its weights' norm;
            None: standard normal values for all P weights, biases included.

    Returns:
        (n, P), in w's dtype and on its device.

    Raises:
        LayoutError: weights of another model.

    >>> net = nn.Linear(2, 2)
    >>> w = torch.tensor([3.0, 4.0, 0.0, 0.5, 7.0, 7.0])  # two rows, then the biases
    >>> directions(net, w)[0].split(2)[0].norm(), directions(net, w)[0].split(2)[1].norm()
    (tensor(5.), tensor(0.5000))
    >>> directions(net, w)[:, 4:]
    tensor([[0., 0.],
            [0., 0.]])
    """
    n, seed = checks.whole("n", n, least=1), checks.seed(seed)
    return torch.stack(list(iter_directions(model, w, range(n), seed=seed, normalise=normalise)))


def iter_directions(
    model: LossSurface | nn.Module,
    w: Tensor | Point,
    numbers: Iterable[int],
    *,
    seed: int = 0,
    normalise: str | None = "filter",
) -> Iterator[Tensor]:
    """The directions (P,) with these numbers, one at a time: see `directions`."""
    checks.choice("normalise", normalise, NORMALISE)
    if isinstance(model, LossSurface):
        layout, module = model.layout, model.template.module
    else:
        layout, module = ParamLayout(model), unwrap(model)
    w = w.weights if isinstance(w, Point) else w
    layout.check(w, flat=True)
    layout.require_finite(w)
    sizes = layout.unflatten(w.detach())
    groups = _groups(module) if normalise == "filter" else {}
    for number in numbers:
        vector = normal(layout.size, seed=seed, draw=number).to(w)
        if normalise is not None:
            for name, part in layout.unflatten(vector).items():  # views: written in place
                like = sizes[name]
                if _moves(name, like):
                    part *= _ratio(part, like, normalise, groups.get(name))
                else:
                    part.zero_()
        yield vector


def _moves(name: str, weight: Tensor) -> bool:
    """Whether a parameter has filters: more than one dimension, and no lengths of weight_norm."""
    lengths = name.endswith((".weight_g", "weight.original0")) or name == "weight_g"
    return weight.ndim > 1 and not lengths


def _ratio(direction: Tensor, weight: Tensor, normalise: str, transposed: int | None) -> Tensor:
    """The factor of each value of a direction, in its shape or one that broadcasts to it."""
    if normalise == "layer":
        return _over(weight.double().norm(), direction.double().norm()).to(direction)
    old, new = (_norms(x, transposed) for x in (direction, weight))
    ratio = _over(new, old).to(direction)
    if transposed is None:
        return ratio.view(-1, *[1] * (weight.ndim - 1))
    # (groups, outputs of a group) -> (inputs, outputs of a group)
    factors = ratio.repeat_interleave(weight.shape[0] // transposed, dim=0)
    return factors.view(*factors.shape, *[1] * (weight.ndim - 2))


def _norms(x: Tensor, transposed: int | None) -> Tensor:
    """The norm of each filter, float64: (outputs,); transposed: (groups, outputs of a group)."""
    if transposed is None:
        norms: Tensor = x.double().flatten(1).norm(dim=1)
        return norms
    inputs, outputs = x.shape[:2]
    grouped = x.double().reshape(transposed, inputs // transposed, outputs, -1)
    norms = grouped.norm(dim=(1, 3))
    return norms


def _over(a: Tensor, b: Tensor) -> Tensor:
    """a / b, zero where b is zero."""
    return torch.where(b > 0, a / b.clamp_min(torch.finfo(torch.float64).tiny), 0)


def _groups(module: nn.Module) -> dict[str, int]:
    """The number of groups of transposed convolutions, by the name of the weight.

    Tied weights have their first name, as in `ParamLayout`.
    """
    short = clean_names([name for name, _ in module.named_parameters(remove_duplicate=False)])
    first = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = {}
    for prefix, layer in module.named_modules():
        if isinstance(layer, _ConvTransposeNd):
            for (
                key,
                parameter,
            ) in (
                layer.named_parameters()
            ):  # also the tensors that a parametrised weight is computed from
                name = f"{prefix}.{key}" if prefix else key
                if "weight" in key and first[id(parameter)] == name:
                    groups[short[name]] = layer.groups
    return groups
