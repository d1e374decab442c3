"""How the axes of an operation's result follow from those of its arguments, operation by operation.

A rule is sound if permuting the arguments along any axes that it does not fix permutes the result
along the same axes, and changes nothing else. It receives the arguments by their names in torch's
schema and returns the dimensions of the (first) result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lowland.alignment.axes import Axis, Dim, fix, fixed, free, regroup, unify

Dims = tuple[Dim, ...]
DimsOf = Callable[[Tensor], Dims]  # the dimensions of a tensor
Rule = Callable[[DimsOf, Mapping[str, Any], Any], "Dims | list[Dims] | None"]

_SPATIAL = re.compile(r"(?:(?<!un)pool|upsample_\w+|(?:reflection|replication)_pad)(\d)d")


def rule_of(operation: Any) -> Rule | None:
    """The rule for an operation of `torch.ops.aten`; None where there is none."""
    name = operation.overloadpacket.__name__.removesuffix("_")
    if name in RULES:
        return RULES[name]
    if match := _SPATIAL.search(name):
        count = int(match[1])
        return lambda dims_of, call, out: _spatial(dims_of(_first_tensor(call)), out, count)
    # torch tags elementwise operations: activations, sums, products, comparisons
    return pointwise if torch.Tag.pointwise in operation.tags else None


def pointwise(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims:
    """Elementwise operations, with torch's broadcasting."""
    return _broadcast(dims_of, call.values(), out.ndim)


def _broadcast(dims_of: DimsOf, values: Iterable[Any], ndim: int) -> Dims:
    dims: list[Dim] = [()] * ndim
    for value in values:
        if isinstance(value, Tensor):
            for place, dim in enumerate(reversed(dims_of(value)), start=1):
                if value.shape[-place] == 1:
                    continue  # one value for all
                if dims[-place]:
                    unify(dims[-place], dim)
                else:
                    dims[-place] = dim
    return tuple(dims)


def _first_tensor(call: Mapping[str, Any]) -> Tensor:
    return next(value for value in call.values() if isinstance(value, Tensor))


def _unchanged(dims_of: DimsOf, call: Mapping[str, Any], out: Any) -> Dims:
    return dims_of(_first_tensor(call))


def _constant(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims:
    return free(*out.shape)  # all values are equal, in any order


# -- products --------------------------------------------------------------------------------------


def _mm(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims:
    a, b = dims_of(call["self"]), dims_of(call["mat2"])
    unify(a[1], b[0])
    return a[0], b[1]


def _bmm(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims:
    a, b = dims_of(call["self"]), dims_of(call["mat2"])
    unify(a[0], b[0])
    unify(a[2], b[1])
    return a[0], a[1], b[2]


def _addmm(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims:
    a, b = dims_of(call["mat1"]), dims_of(call["mat2"])
    unify(a[1], b[0])
    added, sizes = dims_of(call["self"]), call["self"].shape
    for place, dim in ((-1, b[1]), (-2, a[0])):
        if -place <= len(added) and sizes[place] != 1:
            unify(dim, added[place])
    return a[0], b[1]


def _convolution(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims | None:
    images, kernels = dims_of(call["input"]), dims_of(call["weight"])
    inputs, outputs = (0, 1) if call["transposed"] else (1, 0)
    channels = kernels[outputs]
    if call["groups"] == 1:
        unify(images[1], kernels[inputs])
    elif call["groups"] == call["input"].shape[1] and not call["transposed"]:  # depthwise
        unify(channels, images[1] + fixed(out.shape[1] // call["groups"])[0])
    else:
        return None
    for dim in (*images[2:], *kernels[2:]):
        fix(dim)
    if call["bias"] is not None:
        unify(channels, dims_of(call["bias"])[0])
    return images[0], channels, *fixed(*out.shape[2:])


def _embedding(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims:
    words, units = dims_of(call["weight"])
    fix(words)
    return *dims_of(call["indices"]), units


# -- normalisation ---------------------------------------------------------------------------------


def _batch_norm(dims_of: DimsOf, call: Mapping[str, Any], out: Any) -> Dims:
    dims = dims_of(call["input"])
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call.get(name) is not None:
            unify(dims[1], dims_of(call[name])[0])
    return dims


def _layer_norm(dims_of: DimsOf, call: Mapping[str, Any], out: Any) -> Dims:
    dims = dims_of(call["input"])
    for name in ("weight", "bias"):
        if call[name] is not None:
            for dim, scale in zip(reversed(dims), reversed(dims_of(call[name])), strict=False):
                unify(dim, scale)
    return dims


def _weight_norm(dims_of: DimsOf, call: Mapping[str, Any], out: Any) -> Dims:
    unify(dims_of(call["v"])[call["dim"]], dims_of(call["g"])[call["dim"]])
    return dims_of(call["v"])


# -- shapes ----------------------------------------------------------------------------------------


def _view(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims:
    return regroup(dims_of(call["self"]), out.shape)


def _transpose(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims:
    dims = dims_of(call["self"])
    if "dims" in call:
        return tuple(dims[d] for d in call["dims"])
    swapped = list(dims)
    a, b = call.get("dim0", 0), call.get("dim1", -1)
    if dims:  # `t` has no arguments
        swapped[a], swapped[b] = dims[b], dims[a]
    return tuple(swapped)


def _unsqueeze(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims:
    dims = list(dims_of(call["self"]))
    dims.insert(call["dim"] % out.ndim, ())
    return tuple(dims)


def _squeeze(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims:
    remaining = _remaining(call)
    sizes = call["self"].shape
    return tuple(d for i, d in enumerate(dims_of(call["self"])) if i in remaining or sizes[i] != 1)


def _expand(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims:
    dims, sizes = dims_of(call["self"]), call["self"].shape
    new = free(*out.shape)  # copies of one value
    return tuple(
        dims[-place] if place <= len(dims) and sizes[-place] != 1 else new[-place]
        for place in range(out.ndim, 0, -1)
    )


def _repeat(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims:
    dims = dims_of(call["self"])
    dims = ((),) * (out.ndim - len(dims)) + dims
    return tuple((Axis(times), *dim) for times, dim in zip(call["repeats"], dims, strict=True))


def _reduction(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims:
    """Sums, means and the like do not depend on the order."""
    remaining, dims = _remaining(call), dims_of(call["self"])
    if call.get("keepdim"):
        return tuple(dim if i in remaining else () for i, dim in enumerate(dims))
    return tuple(dim for i, dim in enumerate(dims) if i in remaining)


def _remaining(call: Mapping[str, Any]) -> set[int]:
    """The dimensions that the argument `dim` does not reduce; without `dim`, none."""
    reduced, ndim = call.get("dim"), call["self"].ndim
    if reduced is None or reduced == []:
        return set()
    reduced = [reduced] if isinstance(reduced, int) else reduced
    return set(range(ndim)) - {d % ndim for d in reduced}


# -- operations on positions: units along these dimensions are fixed -------------------------------


def _narrow(dims_of: DimsOf, call: Mapping[str, Any], out: Any) -> Dims | list[Dims]:
    """`slice`, `split` and the like: one or several parts of a dimension."""
    dims, place = list(dims_of(call["self"])), call["dim"]

    def piece(part: Tensor) -> Dims:
        if part.shape[place] == call["self"].shape[place]:
            return tuple(dims)
        fix(dims[place])
        new_dims = list(dims)
        new_dims[place] = fixed(part.shape[place])[0]
        return tuple(new_dims)

    return piece(out) if isinstance(out, Tensor) else [piece(part) for part in out]


def _cumulative(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims:
    """`cumsum`: each value depends on all before it."""
    fix(dims_of(call["self"])[call["dim"]])
    return dims_of(call["self"])


def _select(dims_of: DimsOf, call: Mapping[str, Any], out: Any) -> Dims | list[Dims]:
    """`select`, `unbind`: one index of a dimension, or each."""
    dims = list(dims_of(call["self"]))
    fix(dims.pop(call["dim"]))
    return tuple(dims) if isinstance(out, Tensor) else [tuple(dims)] * len(out)


def _cat(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims:
    parts = [dims_of(part) for part in call["tensors"] if part.ndim == out.ndim]
    place = call["dim"] % out.ndim
    for part in parts:
        for i, (dim, other) in enumerate(zip(part, parts[0], strict=True)):
            if i == place:
                fix(dim)
            else:
                unify(dim, other)
    new_dims = list(parts[0])
    new_dims[place] = fixed(out.shape[place])[0]
    return tuple(new_dims)


def _stack(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims:
    new_dims = list(_broadcast(dims_of, call["tensors"], out.ndim - 1))
    new_dims.insert(call["dim"] % out.ndim, fixed(len(call["tensors"]))[0])
    return tuple(new_dims)


def _pad(dims_of: DimsOf, call: Mapping[str, Any], out: Tensor) -> Dims:
    dims = list(dims_of(call["self"]))
    for i, (before, after) in enumerate(zip(call["self"].shape, out.shape, strict=True)):
        if before != after:
            fix(dims[i])
            dims[i] = fixed(after)[0]
    return tuple(dims)


def _spatial(dims: Dims, out: Any, count: int) -> Dims:
    """Pooling and the like: the last `count` dimensions are places in an image."""
    for dim in dims[-count:]:
        fix(dim)
    first = out if isinstance(out, Tensor) else out[0]
    return *dims[:-count], *fixed(*first.shape[-count:])


RULES: dict[str, Rule] = {
    name: rule
    for rule, names in {
        _mm: "mm",
        _bmm: "bmm",
        _addmm: "addmm",
        _convolution: "convolution",
        _embedding: "embedding",
        _batch_norm: "native_batch_norm cudnn_batch_norm miopen_batch_norm _batch_norm_no_update "
        "_native_batch_norm_legit _native_batch_norm_legit_no_training",
        _layer_norm: "native_layer_norm",
        _weight_norm: "_weight_norm_interface",
        _view: "view _unsafe_view reshape _reshape_alias",
        _transpose: "t transpose permute",
        _unsqueeze: "unsqueeze",
        _squeeze: "squeeze",
        _expand: "expand",
        _repeat: "repeat",
        _reduction: "mean sum amax amin var std logsumexp linalg_vector_norm",
        _narrow: "slice split split_with_sizes unsafe_split",
        _cumulative: "cumsum cumprod",
        _select: "select unbind",
        _cat: "cat",
        _stack: "stack",
        _pad: "constant_pad_nd",
        _constant: "zeros ones full zeros_like ones_like full_like new_zeros new_ones new_full",
        # a softmax divides by a sum, which no order changes
        _unchanged: "_to_copy detach alias bernoulli native_dropout _softmax _log_softmax",
        pointwise: "copy _prelu_kernel hardswish",
    }.items()
    for name in names.split()
}
