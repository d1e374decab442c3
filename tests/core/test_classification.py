"""Categorical and Bernoulli likelihoods against torch."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lowland as ll
from tests.core.random_data import labels, randn


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.int16])
def test_multiclass(dtype) -> None:
    output, target = randn(9, 4), labels(4, 9)
    task = ll.Classification()
    nll = task.nll(output, target.to(dtype))
    torch.testing.assert_close(nll, F.cross_entropy(output, target, reduction="none"))
    assert task.count((output, target.to(dtype))) == 9
    torch.testing.assert_close(task.probs(output), output.softmax(1))


def test_dense_labels_with_some_ignored() -> None:
    output, target = randn(3, 4, 5, 2), labels(4, 3, 5, 2)
    target[0, :2] = -100
    task = ll.Classification()
    nll = task.nll(output, target)
    expected = F.cross_entropy(output, target, reduction="none").reshape(-1)
    torch.testing.assert_close(nll, expected)
    assert task.count((output, target)) == 26
    torch.testing.assert_close(nll.sum() / 26, F.cross_entropy(output, target))
    assert ll.Classification(ignore_index=2).count((output, target)) == int((target != 2).sum())


def test_ignored_labels_of_small_integers() -> None:
    # in eight bits -100 is 156
    target = torch.tensor([156, 3], dtype=torch.uint8)
    task = ll.Classification()
    assert task.count((torch.zeros(2, 200), target)) == 2
    task.check(torch.zeros(2, 200), target)
    with pytest.raises(ll.DataError, match="expected 0 to 99, got 156"):
        task.check(torch.zeros(2, 100), target)
    skip = ll.Classification(ignore_index=255)
    assert skip.count((torch.zeros(2, 4), torch.tensor([255, 3], dtype=torch.uint8))) == 1


@pytest.mark.parametrize("shapes", [((6,), (6,)), ((6, 1), (6, 1)), ((6, 1), (6,)), ((6,), (6, 1))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.float64])
def test_binary(shapes, dtype) -> None:
    output, target = randn(*shapes[0]) * 5, labels(2, *shapes[1]).to(dtype)
    task = ll.Classification()
    expected = F.binary_cross_entropy_with_logits(
        output.reshape(6), target.reshape(6).float(), reduction="none"
    )
    nll = task.nll(output, target)
    assert nll.shape == (6,)  # broadcasting would give 36
    torch.testing.assert_close(nll, expected)
    assert task.count((output, target)) == 6
    probs = task.probs(output)
    torch.testing.assert_close(probs[:, 1], output.reshape(6).sigmoid())
    torch.testing.assert_close(probs.sum(1), torch.ones(6))


def test_binary_probabilities_do_not_round_to_zero() -> None:
    probs = ll.Classification().probs(torch.tensor([50.0, -50.0]))
    assert probs[0, 0] > 0
    assert 1 - probs[0, 1] == 0  # broken twin
    torch.testing.assert_close(probs[0, 0], torch.tensor(math.exp(-50)))


def test_multilabel() -> None:
    output, target = randn(5, 3), labels(2, 5, 3)
    expected = F.binary_cross_entropy_with_logits(output, target.float(), reduction="none").sum(1)
    torch.testing.assert_close(ll.Classification().nll(output, target.float()), expected)
    strict = ll.Classification("multilabel")
    torch.testing.assert_close(strict.nll(output, target), expected)
    assert (
        strict.count((output, target)) == ll.Classification().count((output, target.float())) == 5
    )
    torch.testing.assert_close(strict.probs(output), output.sigmoid())
    p = output.sigmoid()
    entropy = torch.distributions.Bernoulli(probs=p).entropy().sum(1)
    torch.testing.assert_close(strict.entropy(p), entropy)


def test_multilabel_maps_are_one_item_per_example() -> None:
    output, target = randn(4, 1, 3, 3), labels(2, 4, 1, 3, 3).float()
    task = ll.Classification()
    expected = F.binary_cross_entropy_with_logits(output, target, reduction="none").sum((1, 2, 3))
    torch.testing.assert_close(task.nll(output, target), expected)
    assert task.count((output, target)) == 4


@pytest.mark.parametrize(
    ("output", "target", "says"),
    [
        (
            torch.zeros(4, 3),
            torch.zeros(4, 1, dtype=torch.int64),
            r"integer labels \(4,\), got int64 \(4, 1\); use target.squeeze\(-1\),",
        ),
        (
            torch.zeros(4, 3),
            torch.zeros(5, dtype=torch.int64),
            r"expected targets \(4,\), got \(5,\)",
        ),
        (torch.zeros(4, 3), torch.zeros(4), r"integer labels \(4,\), got float32 .*target.long()"),
        (torch.zeros(4, 3, 2), torch.zeros(4, dtype=torch.int64), r"expected targets \(4, 2\)"),
        (torch.zeros(4, 3), torch.zeros(4, 3, dtype=torch.int64), "name another form="),
        (torch.zeros(4), torch.zeros(3), r"binary classification: for outputs \(4,\)"),
    ],
)
def test_shapes_that_fit_no_form(output, target, says) -> None:
    with pytest.raises(ll.DataError, match=says):
        ll.Classification().nll(output, target)


def test_values_that_cannot_be_labels() -> None:
    task = ll.Classification()
    with pytest.raises(ll.DataError, match="expected 0 to 2, got 3"):
        task.check(torch.zeros(2, 3), torch.tensor([0, 3]))
    with pytest.raises(ll.DataError, match="expected 0 to 2, got -1"):
        task.check(torch.zeros(2, 3), torch.tensor([0, -1]))
    task.check(torch.zeros(2, 3), torch.tensor([0, -100]))
    with pytest.raises(ll.DataError, match=r"expected labels 0 or 1, got 0.5"):
        task.check(torch.zeros(2), torch.tensor([0.5, 1]))
    with pytest.raises(ll.DataError, match="0 or 1"):
        task.check(torch.zeros(2), torch.tensor([torch.nan, 1]))
    with pytest.raises(ll.ConfigError, match="multiclass"):
        ll.Classification("soft")
    surface = ll.LossSurface(nn.Linear(2, 3), task, [(torch.zeros(2, 2), torch.tensor([0, 7]))])
    with pytest.raises(ll.DataError, match="labels out of range"):
        surface(torch.zeros(9))


def test_losses_are_never_computed_in_half_precision() -> None:
    output, target = randn(64, 10), labels(10, 64)
    half = output.bfloat16()
    nll = ll.Classification().nll(half, target)
    assert nll.dtype == torch.float32
    torch.testing.assert_close(nll, F.cross_entropy(half.float(), target, reduction="none"))


def test_one_hot_targets_are_not_multilabel_targets():
    data = [(torch.randn(6, 4), torch.eye(3).repeat(2, 1))]
    surface = ll.LossSurface(nn.Linear(4, 3), ll.Classification(), data)
    with pytest.raises(ll.DataError, match="one-hot"):
        surface(torch.zeros(15))
    surface = ll.LossSurface(nn.Linear(4, 3), ll.Classification("multilabel"), data)
    assert float(surface(torch.zeros(15))) == pytest.approx(3 * np.log(2))
