"""The kind of each tensor in a checkpoint, by its name and values: whether it is averaged."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from enum import Enum

import torch
from torch import Tensor

from lowland.errors import LayoutError, NonFiniteError
from lowland.files import PathLike
from lowland.trajectory.singular_vectors import spectral_norms

_STATISTICS = re.compile(r"(^|[./])running_\w+$")
_RANGES = re.compile(r"(^|\.)(\w*fake_quant\w*|activation_post_process(_\d+)?)\.")
# what weights are packed into
_NARROW = (torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32)
# weight norm's length and direction, and other weights made of several tensors
_PART = re.compile(r"^(?P<weight>(?:.*\.)?parametrizations\.[^.]+\.original(?=\d+$)|.*_(?=[gv]$))")


class Kind(Enum):
    """The kind of a tensor: its title, and what an average does with such tensors."""

    WEIGHT = "Weights", "are averaged"
    STATISTICS = (
        "BatchNorm statistics",
        "are the last checkpoint's, and do not fit averaged weights: give --config, which "
        "re-estimates them, or call torch.optim.swa_utils.update_bn(train_loader, model) after "
        "loading",
    )
    SPECTRAL = "Vectors of spectral norm", "are the singular vectors of the averaged weights"
    RANGES = (
        "Ranges of quantisation-aware training",
        "are the last checkpoint's, and do not fit averaged weights: calibrate them again",
    )
    MASK = "Pruning masks", "are the same in all checkpoints"
    CONSTANT = "Infinite values, as of masks,", "are the same in all checkpoints"
    COMPLEX = "Complex numbers", "are the last checkpoint's, since --where leaves them out"
    INTEGER = "Integers and booleans", "are the last checkpoint's"

    @property
    def title(self) -> str:
        """What such tensors are called."""
        return self.value[0]

    @property
    def outcome(self) -> str:
        """What an average without the model does with them."""
        return self.value[1]


def kinds_of(tensors: Mapping[str, Tensor]) -> dict[str, Kind]:
    """The kind of each tensor of a checkpoint, without its model.

    In a file a module's own floating-point buffers look like parameters: a tensor with none of the
    names below counts as a weight.

    >>> kinds = kinds_of({"weight": torch.ones(2), "running_mean": torch.ones(2)})
    >>> [kind.name for kind in kinds.values()]
    ['WEIGHT', 'STATISTICS']
    """
    vectors = {name for norm in spectral_norms(tensors) for name in (norm.u, norm.v)}

    def kind(name: str, tensor: Tensor) -> Kind:
        if name in vectors:
            return Kind.SPECTRAL
        if name.endswith("_mask") and f"{name[:-4]}orig" in tensors:
            return Kind.MASK
        if _RANGES.search(name):
            return Kind.RANGES
        if tensor.is_complex():
            return Kind.COMPLEX
        if not tensor.dtype.is_floating_point:
            return Kind.INTEGER
        if _STATISTICS.search(name):
            return Kind.STATISTICS
        return Kind.CONSTANT if _has_infinities(tensor) else Kind.WEIGHT

    return {name: kind(name, tensor) for name, tensor in tensors.items()}


def _has_infinities(tensor: Tensor) -> bool:
    # a sum is one read and allocates nothing; only a suspicious one is looked into
    total = tensor.sum(dtype=torch.float64).item()
    return not math.isfinite(total) and bool(torch.isinf(tensor).any())


def require_whole(averaged: Collection[str], kinds: Mapping[str, Kind]) -> None:
    """Raises `LayoutError` unless the weights of each layer are averaged with all their parts.

    Args:
        averaged: names of tensors. kinds: of all tensors of the checkpoint.

    >>> kinds = {name: Kind.WEIGHT for name in ("weight_g", "weight_v")}
    >>> require_whole(["weight_g", "weight_v"], kinds)
    >>> require_whole(["weight_g"], kinds)
    Traceback (most recent call last):
        ...
    lowland.errors.LayoutError: weight_g would be averaged and weight_v would not, ...
    """
    weights: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        part = _PART.match(name)
        if part and kind is Kind.WEIGHT:
            weights.setdefault(part["weight"], []).append(name)
    for parts in weights.values():
        left = [name for name in parts if name not in averaged]
        if 0 < len(left) < len(parts):
            first = next(name for name in parts if name in averaged)
            raise LayoutError(
                f"{first} would be averaged and {left[0]} would not, and one weight is made of "
                "both; change --where so that it selects both or neither."
            )


def require_constant(
    tensors: Mapping[str, Tensor],
    others: Mapping[str, Tensor],
    kinds: Mapping[str, Kind],
    *,
    names: Iterable[PathLike],
) -> None:
    """Raises unless two checkpoints agree in what must be the same in all.

    Raises:
        NonFiniteError: infinite values that differ. LayoutError: pruning masks that differ, or
            integers of 8 to 32 bits, which are weights in a form that has no mean.
    """
    ours, theirs = names
    for name, kind in kinds.items():
        if kind not in (Kind.MASK, Kind.CONSTANT, Kind.INTEGER):
            continue
        a, b = tensors[name], others[name]
        if a.dtype == b.dtype and torch.equal(a, b):
            continue
        if kind is Kind.CONSTANT:
            raise NonFiniteError(
                f"{ours}: {name} holds infinite values, and others than in {theirs}; leave the "
                "file out, or the tensor with --where."
            )
        if kind is Kind.MASK:
            raise LayoutError(
                f"{name}, a mask of pruned weights, differs between {ours} and {theirs}: the "
                "average of the weights would fit neither; average checkpoints that were pruned "
                "alike."
            )
        if a.numel() > 1 and a.dtype in _NARROW:
            dtype = str(a.dtype).removeprefix("torch.")
            raise LayoutError(
                f"{name} ({dtype}, {tuple(a.shape)}) differs between {ours} and {theirs}: these "
                "are weights or other state that integers stand for, and have no mean; average "
                "floating-point checkpoints, or leave the tensor to the last one with --where."
            )
