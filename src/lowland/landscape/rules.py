"""How the axes of an operation's result follow from those of its arguments, operation by operation.

A rule is sound if permuting the arguments along any axes that it has not fixed permutes the result
along the same axes, and changes nothing else. It has the arguments by their names in torch's
schema, and gives the dimensions of the (first) result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lowland.landscape.axes import Axis, Dim, fix, fixed, free, regroup, unify

Dims = tuple[Dim, ...]
Of = Callable[[Tensor], Dims]  # the dimensions of a tensor
Rule = Callable[[Of, Mapping[str, Any], Any], "Dims | list[Dims] | None"]

_SPATIAL = re.compile(r"(?:(?<!un)pool|upsample_\w+|(?:reflection|replication)_pad)(\d)d")


def rule_of(operation: Any) -> Rule | None:
    """The rule for an operation of `torch.ops.aten`; None: it is not known."""
    name = operation.overloadpacket.__name__.removesuffix("_")
    if name in RULES:
        return RULES[name]
    if found := _SPATIAL.search(name):
        return lambda of, call, out: _spatial(of(_first(call)), out, int(found[1]))
    # torch marks what it computes value by value: activations, sums, products, comparisons
    return pointwise if torch.Tag.pointwise in operation.tags else None


def pointwise(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims:
    """Values at one place depend on those at the same place alone; broadcasting as torch does."""
    return _together(of, call.values(), out.ndim)


def _together(of: Of, values: Iterable[Any], ndim: int) -> Dims:
    dims: list[Dim] = [()] * ndim
    for value in values:
        if isinstance(value, Tensor):
            for place, dim in enumerate(reversed(of(value)), start=1):
                if value.shape[-place] == 1:
                    continue  # one value for all
                if dims[-place]:
                    unify(dims[-place], dim)
                else:
                    dims[-place] = dim
    return tuple(dims)


def _first(call: Mapping[str, Any]) -> Tensor:
    return next(value for value in call.values() if isinstance(value, Tensor))


def _same(of: Of, call: Mapping[str, Any], out: Any) -> Dims:
    return of(_first(call))


def _constant(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims:
    return free(*out.shape)  # all values are equal, in any order


# -- products --------------------------------------------------------------------------------------


def _mm(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims:
    a, b = of(call["self"]), of(call["mat2"])
    unify(a[1], b[0])
    return a[0], b[1]


def _bmm(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims:
    a, b = of(call["self"]), of(call["mat2"])
    unify(a[0], b[0])
    unify(a[2], b[1])
    return a[0], a[1], b[2]


def _addmm(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims:
    a, b = of(call["mat1"]), of(call["mat2"])
    unify(a[1], b[0])
    added, sizes = of(call["self"]), call["self"].shape
    for place, dim in ((-1, b[1]), (-2, a[0])):
        if -place <= len(added) and sizes[place] != 1:
            unify(dim, added[place])
    return a[0], b[1]


def _convolution(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims | None:
    images, kernels = of(call["input"]), of(call["weight"])
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
        unify(channels, of(call["bias"])[0])
    return images[0], channels, *fixed(*out.shape[2:])


def _embedding(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims:
    words, units = of(call["weight"])
    fix(words)
    return *of(call["indices"]), units


# -- normalisation ---------------------------------------------------------------------------------


def _batch_norm(of: Of, call: Mapping[str, Any], out: Any) -> Dims:
    dims = of(call["input"])
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call.get(name) is not None:
            unify(dims[1], of(call[name])[0])
    return dims


def _layer_norm(of: Of, call: Mapping[str, Any], out: Any) -> Dims:
    dims = of(call["input"])
    for name in ("weight", "bias"):
        if call[name] is not None:
            for dim, scale in zip(reversed(dims), reversed(of(call[name])), strict=False):
                unify(dim, scale)
    return dims


def _weight_norm(of: Of, call: Mapping[str, Any], out: Any) -> Dims:
    unify(of(call["v"])[call["dim"]], of(call["g"])[call["dim"]])
    return of(call["v"])


# -- shapes ----------------------------------------------------------------------------------------


def _view(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims:
    return regroup(of(call["self"]), out.shape)


def _moved(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims:
    dims = of(call["self"])
    if "dims" in call:
        return tuple(dims[d] for d in call["dims"])
    swapped = list(dims)
    a, b = call.get("dim0", 0), call.get("dim1", -1)
    if dims:  # `t` has no arguments
        swapped[a], swapped[b] = dims[b], dims[a]
    return tuple(swapped)


def _unsqueeze(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims:
    dims = list(of(call["self"]))
    dims.insert(call["dim"] % out.ndim, ())
    return tuple(dims)


def _squeeze(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims:
    kept = _kept(call)
    sizes = call["self"].shape
    return tuple(d for i, d in enumerate(of(call["self"])) if i in kept or sizes[i] != 1)


def _expand(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims:
    dims, sizes = of(call["self"]), call["self"].shape
    new = free(*out.shape)  # copies of one value
    return tuple(
        dims[-place] if place <= len(dims) and sizes[-place] != 1 else new[-place]
        for place in range(out.ndim, 0, -1)
    )


def _repeat(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims:
    dims = of(call["self"])
    dims = ((),) * (out.ndim - len(dims)) + dims
    return tuple((Axis(times), *dim) for times, dim in zip(call["repeats"], dims, strict=True))


def _reduced(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims:
    """Sums, means and the like do not depend on the order."""
    kept, dims = _kept(call), of(call["self"])
    if call.get("keepdim"):
        return tuple(dim if i in kept else () for i, dim in enumerate(dims))
    return tuple(dim for i, dim in enumerate(dims) if i in kept)


def _kept(call: Mapping[str, Any]) -> set[int]:
    """The dimensions that `dim` does not name; it names all where it is left out."""
    named, ndim = call.get("dim"), call["self"].ndim
    if named is None or named == []:
        return set()
    return set(range(ndim)) - {d % ndim for d in ([named] if isinstance(named, int) else named)}


# -- what looks at places: units there stay where they are -----------------------------------------


def _piece(of: Of, call: Mapping[str, Any], out: Any) -> Dims | list[Dims]:
    """`slice`, `split` and the like: a part of one dimension, or several."""
    dims, place = list(of(call["self"])), call["dim"]

    def piece(part: Tensor) -> Dims:
        if part.shape[place] == call["self"].shape[place]:
            return tuple(dims)
        fix(dims[place])
        made = list(dims)
        made[place] = fixed(part.shape[place])[0]
        return tuple(made)

    return piece(out) if isinstance(out, Tensor) else [piece(part) for part in out]


def _along(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims:
    """`cumsum`: every place by all before it."""
    fix(of(call["self"])[call["dim"]])
    return of(call["self"])


def _one(of: Of, call: Mapping[str, Any], out: Any) -> Dims | list[Dims]:
    """`select`, `unbind`: one place of a dimension, or each."""
    dims = list(of(call["self"]))
    fix(dims.pop(call["dim"]))
    return tuple(dims) if isinstance(out, Tensor) else [tuple(dims)] * len(out)


def _cat(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims:
    parts = [of(part) for part in call["tensors"] if part.ndim == out.ndim]
    place = call["dim"] % out.ndim
    for part in parts:
        for i, (dim, other) in enumerate(zip(part, parts[0], strict=True)):
            if i == place:
                fix(dim)
            else:
                unify(dim, other)
    made = list(parts[0])
    made[place] = fixed(out.shape[place])[0]
    return tuple(made)


def _stack(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims:
    made = list(_together(of, call["tensors"], out.ndim - 1))
    made.insert(call["dim"] % out.ndim, fixed(len(call["tensors"]))[0])
    return tuple(made)


def _pad(of: Of, call: Mapping[str, Any], out: Tensor) -> Dims:
    dims = list(of(call["self"]))
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
        _moved: "t transpose permute",
        _unsqueeze: "unsqueeze",
        _squeeze: "squeeze",
        _expand: "expand",
        _repeat: "repeat",
        _reduced: "mean sum amax amin var std logsumexp linalg_vector_norm",
        _piece: "slice split split_with_sizes unsafe_split",
        _along: "cumsum cumprod",
        _one: "select unbind",
        _cat: "cat",
        _stack: "stack",
        _pad: "constant_pad_nd",
        _constant: "zeros ones full zeros_like ones_like full_like new_zeros new_ones new_full",
        # a softmax divides by a sum over all
        _same: "_to_copy detach alias bernoulli native_dropout _softmax _log_softmax",
        pointwise: "copy _prelu_kernel hardswish",
    }.items()
    for name in names.split()
}
