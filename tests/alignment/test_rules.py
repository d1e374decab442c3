"""Rules of operations are sound: what they let be permuted permutes the result, and no more."""

import pytest
import torch

from lowland.alignment.axes import factors_of, free
from lowland.alignment.rules import pointwise, rule_of

aten = torch.ops.aten


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


CASES = {
    "relu": (aten.relu.default, (randn(3, 4),)),
    "add": (aten.add.Tensor, (randn(3, 4), randn(4))),
    "one for all": (aten.mul.Tensor, (randn(3, 4), randn(3, 1))),
    "mm": (aten.mm.default, (randn(3, 4), randn(4, 5))),
    "bmm": (aten.bmm.default, (randn(2, 3, 4), randn(2, 4, 5))),
    "addmm": (aten.addmm.default, (randn(5), randn(3, 4), randn(4, 5))),
    "transpose": (aten.transpose.int, (randn(3, 4, 5), 0, 2)),
    "permute": (aten.permute.default, (randn(3, 4, 5), [2, 0, 1])),
    "sum": (aten.sum.dim_IntList, (randn(3, 4, 5), [1])),
    "mean": (aten.mean.dim, (randn(3, 4, 5), [0, 2], True)),
    "cumsum": (aten.cumsum.default, (randn(3, 4), 1)),
    "select": (aten.select.int, (randn(3, 4), 1, 2)),
    "slice": (aten.slice.Tensor, (randn(3, 4), 1, 1, 3)),
    "unsqueeze": (aten.unsqueeze.default, (randn(3, 4), 1)),
    "embedding": (aten.embedding.default, (randn(9, 4), torch.tensor([[1, 7, 2]]))),
    "convolution": (
        aten.convolution.default,
        (randn(2, 3, 6, 6), randn(4, 3, 3, 3), randn(4), [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
    ),
}


def permute(tensor, dims, axis, order):
    """A tensor with an axis in another order, wherever it is a whole dimension."""
    for place, dim in enumerate(dims):
        if factors_of(dim) == [axis]:
            tensor = tensor.index_select(place, order)
    return tensor


def check(operation, args, rule):
    call = dict(zip((a.name for a in operation._schema.arguments), args, strict=False))
    dims = {id(x): free(*x.shape) for x in args if isinstance(x, torch.Tensor)}
    out = operation(*args)
    result = rule(lambda tensor: dims[id(tensor)], call, out)
    assert len(result) == out.ndim
    axes = {id(a): a for each in (*dims.values(), result) for dim in each for a in factors_of(dim)}
    open_axes = [axis for axis in axes.values() if not axis.fixed]
    permuted_count = 0
    for axis in open_axes:
        order = torch.arange(axis.size).roll(1)
        others = [permute(x, dims.get(id(x), ()), axis, order) for x in args]
        torch.testing.assert_close(operation(*others), permute(out, result, axis, order))
        permuted_count += any(a is not b for a, b in zip(others, args, strict=True))
    assert permuted_count


@pytest.mark.parametrize("name", CASES)
def test_what_may_be_permuted_permutes_the_result(name):
    operation, args = CASES[name]
    check(operation, args, rule_of(operation))


def test_the_check_fails_a_rule_that_lets_too_much_be_permuted():
    with pytest.raises(AssertionError):
        check(aten.cumsum.default, (randn(3, 4), 1), pointwise)


def test_an_unknown_operation_has_no_rule():
    assert rule_of(aten.linalg_qr.default) is None
    assert rule_of(aten.sigmoid.default) is not None
