"""Axes of tensors: which of them list the same units, in the same order.

Each dimension of each tensor in a network lists something: examples of a batch, pixels, hidden
units. Two dimensions that meet in an operation, such as a linear layer's output and the next
one's input, or the two terms of a residual sum, list the same. `unify` records that (union-find);
`regroup` follows a reshape, after which one dimension lists pairs, such as (unit, pixel).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(eq=False)
class Axis:
    """What a dimension, or a factor of one, lists. `fixed`: it must not be permuted."""

    size: int
    fixed: bool = False
    parent: Axis | None = None  # the axis that this one is the same as
    factors: tuple[Axis, ...] = ()  # the axes whose product, the last one fastest, this one is


Dim = tuple[Axis, ...]  # a dimension: a product of axes, the last one fastest


def factors_of(dim: Iterable[Axis]) -> list[Axis]:
    """The axes that a dimension is the product of, without those of size 1."""
    factors: list[Axis] = []
    for axis in dim:
        while axis.parent is not None:
            axis = axis.parent
        if axis.factors:
            factors += factors_of(axis.factors)
        elif axis.size != 1:
            factors.append(axis)
    return factors


def fix(dim: Iterable[Axis]) -> None:
    """Marks the axes of this dimension as not to be permuted."""
    for axis in factors_of(dim):
        axis.fixed = True


def fixed(*shape: int) -> tuple[Dim, ...]:
    """New dimensions that are not to be permuted."""
    return tuple((Axis(size, fixed=True),) for size in shape)


def free(*shape: int) -> tuple[Dim, ...]:
    """New dimensions that may be permuted."""
    return tuple((Axis(size),) for size in shape)


def unify(a: Dim, b: Dim) -> None:
    """Records that both dimensions list the same; a product of axes splits an axis that it equals.

    >>> channels, pixels, flat = free(8)[0], fixed(9)[0], free(72)[0]
    >>> unify(flat, channels + pixels)
    >>> [(axis.size, axis.fixed) for axis in factors_of(flat)]
    [(8, False), (9, True)]
    """
    left, right = factors_of(a), factors_of(b)
    while left and right:
        x, y = left[0], right[0]
        if x is not y and x.size == y.size:
            x.parent = y
            y.fixed |= x.fixed
        elif x is not y and not (_split(x, y.size) or _split(y, x.size)):
            fix(a)  # blocks that overlap: only the present order suits both
            fix(b)
            return
        left, right = factors_of(left), factors_of(right)
        if left[0] is right[0]:
            left, right = left[1:], right[1:]


def regroup(dims: Iterable[Dim], shape: Sequence[int]) -> tuple[Dim, ...]:
    """The dimensions after a reshape to `shape`, which keeps the order of the values.

    >>> ((a,), (b,)), flat = free(4, 6), fixed(2)[0]
    >>> [[axis.size for axis in dim] for dim in regroup([(a,), (b,)], (24,))]
    [[4, 6]]
    >>> [[axis.size for axis in dim] for dim in regroup([(a,), (b,)], (8, 3))]
    [[4, 2], [3]]
    """
    axes = factors_of(axis for dim in dims for axis in dim)
    rest, new_dims = axes, []
    for size in shape:
        dim: list[Axis] = []
        while (need := size // math.prod(axis.size for axis in dim)) > 1:
            first = rest[0]
            if need % first.size == 0:
                dim.append(first)
                rest = rest[1:]
            elif _split(first, need):
                rest = factors_of(rest)
            else:
                fix(axes)
                return fixed(*shape)
        new_dims.append(tuple(dim))
    return tuple(new_dims)


def _split(axis: Axis, first: int) -> bool:
    """Makes `axis` the product of an axis of size `first` and another, where `first` divides it."""
    if axis.size <= first or axis.size % first:
        return False
    axis.factors = (Axis(first, axis.fixed), Axis(axis.size // first, axis.fixed))
    return True
