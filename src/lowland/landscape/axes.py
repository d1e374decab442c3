"""Axes of tensors: which of them list the same units, in the same order.

Whatever a network computes, each dimension of each tensor lists something: rows of a batch, pixels,
hidden units. Two dimensions that meet in an operation, such as a linear layer's output and the next
one's input, or the two terms of a residual sum, list the same things. `unify` notes that (union and
find); `regroup` follows a reshape, after which one dimension lists pairs, such as (unit, pixel).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(eq=False)
class Axis:
    """What a dimension, or a factor of one, lists. `fixed`: its order has a meaning of its own."""

    size: int
    fixed: bool = False
    same: Axis | None = None  # the axis that this one was found to be
    parts: tuple[Axis, ...] = ()  # the axes whose product, the last one fastest, this one is


Dim = tuple[Axis, ...]  # a dimension: a product of axes, the last one fastest


def roots(dim: Iterable[Axis]) -> list[Axis]:
    """The axes that a dimension is the product of, as far as is known; those of size 1 left out."""
    found: list[Axis] = []
    for axis in dim:
        while axis.same is not None:
            axis = axis.same
        if axis.parts:
            found += roots(axis.parts)
        elif axis.size != 1:
            found.append(axis)
    return found


def fix(dim: Iterable[Axis]) -> None:
    """The order along this dimension has a meaning: its axes are not to be permuted."""
    for axis in roots(dim):
        axis.fixed = True


def fixed(*shape: int) -> tuple[Dim, ...]:
    """New dimensions that are not to be permuted."""
    return tuple((Axis(size, fixed=True),) for size in shape)


def free(*shape: int) -> tuple[Dim, ...]:
    """New dimensions that may be."""
    return tuple((Axis(size),) for size in shape)


def unify(a: Dim, b: Dim) -> None:
    """Both dimensions list the same things; a product of axes splits a single one that meets it.

    >>> channels, pixels, flat = free(8)[0], fixed(9)[0], free(72)[0]
    >>> unify(flat, channels + pixels)
    >>> [(axis.size, axis.fixed) for axis in roots(flat)]
    [(8, False), (9, True)]
    """
    left, right = roots(a), roots(b)
    while left and right:
        x, y = left[0], right[0]
        if x is not y and x.size == y.size:
            x.same = y
            y.fixed |= x.fixed
        elif x is not y and not (_split(x, y.size) or _split(y, x.size)):
            fix(a)  # blocks that overlap: no order but the one there is suits both
            fix(b)
            return
        left, right = roots(left), roots(right)
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
    every = roots(axis for dim in dims for axis in dim)
    rest, made = every, []
    for size in shape:
        taken: list[Axis] = []
        while (need := size // math.prod(axis.size for axis in taken)) > 1:
            first = rest[0]
            if need % first.size == 0:
                taken.append(first)
                rest = rest[1:]
            elif _split(first, need):
                rest = roots(rest)
            else:
                fix(every)
                return fixed(*shape)
        made.append(tuple(taken))
    return tuple(made)


def _split(axis: Axis, first: int) -> bool:
    """Makes `axis` the product of one of size `first` and the rest, where that divides it."""
    if axis.size <= first or axis.size % first:
        return False
    axis.parts = (Axis(first, axis.fixed), Axis(axis.size // first, axis.fixed))
    return True
