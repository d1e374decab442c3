"""Axes of tensors: what meets in an operation lists the same, and reshapes are followed."""

import pytest
import torch

from lowland.alignment.axes import factors_of, fix, fixed, free, regroup, unify


def sizes(dim):
    return [axis.size for axis in factors_of(dim)]


def test_what_meets_is_one_axis_and_fixed_where_one_of_them_is():
    (a,), (b,), (c,) = dims = free(6, 6, 6)
    unify(*dims[:2])
    unify(*dims[1:])
    assert factors_of([a]) == factors_of([b]) == factors_of([c])
    assert not factors_of([a])[0].fixed
    unify(dims[0], fixed(6)[0])
    assert all(axis.fixed for dim in dims for axis in factors_of(dim))


def test_axes_of_size_one_list_nothing():
    (units,), (one,) = free(5, 1)
    unify((units, one), free(5)[0])
    assert sizes((units, one)) == [5]
    assert factors_of((one,)) == []


def test_a_product_splits_what_meets_it():
    channels, pixels, flat = free(8)[0], fixed(9)[0], free(72)[0]
    unify(flat, channels + pixels)
    assert factors_of(flat) == factors_of(channels) + factors_of(pixels)
    assert [axis.fixed for axis in factors_of(flat)] == [False, True]


def test_blocks_that_overlap_keep_their_order():
    a, b = free(4, 6), free(6, 4)
    left, right = a[0] + a[1], b[0] + b[1]  # 24 as 4 x 6, and as 6 x 4
    unify(left, right)
    assert all(axis.fixed for axis in factors_of(left) + factors_of(right))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((4, 6), (24,), [[4, 6]]),
        ((24,), (4, 6), [[4], [6]]),
        ((4, 6), (8, 3), [[4, 2], [3]]),
        ((2, 3, 4), (2, 12), [[2], [3, 4]]),
        ((2, 1, 3), (2, 3, 1), [[2], [3], []]),
    ],
)
def test_a_reshape_keeps_the_order_of_the_values(before, after, expected):
    dims = free(*before)
    regrouped = regroup(dims, after)
    assert [sizes(dim) for dim in regrouped] == expected
    # a permutation of the first axis moves the values of a reshaped tensor as it says
    x = torch.arange(torch.Size(before).numel()).reshape(before)
    order = torch.arange(before[0]).flip(0)
    axes = [size for dim in regrouped for size in sizes(dim)]
    first = factors_of(dims[0])
    expected_values = x[order].reshape(after)
    split = x.reshape(axes)
    for place in range(len(first)):  # backwards along an axis is backwards along all its parts
        split = split.flip(place)
    assert torch.equal(split.reshape(after), expected_values)


def test_a_reshape_across_blocks_is_fixed():
    dims = free(6, 4)
    regrouped = regroup(dims, (4, 6))
    assert [[axis.fixed for axis in dim] for dim in regrouped] == [[True], [True]]
    assert all(axis.fixed for dim in dims for axis in factors_of(dim))


def test_fixing_a_product_fixes_its_parts():
    (flat,) = free(6)
    parts = regroup([flat], (2, 3))
    fix(flat)
    assert all(axis.fixed for dim in parts for axis in dim)
