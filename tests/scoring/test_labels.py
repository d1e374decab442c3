"""Which items of a prediction count, against boolean indexing by hand."""

import pytest
import torch

import lowland as ll
from lowland.core.task import require_labels
from lowland.records import Predictive
from lowland.scoring.labels import (
    binary_probs,
    counted_items,
    is_multilabel,
    labelled_items,
    partial_mask,
    prediction_task,
    split_labels,
)


def generator():
    return torch.Generator().manual_seed(0)


def test_items_of_images_are_the_pixels_that_count():
    probs = torch.rand(2, 3, 4, 5, generator=generator()).softmax(1)
    target = torch.randint(3, (2, 4, 5), generator=generator())
    target[0, 1] = 255
    result, labels = counted_items(ll.Classification(ignore_index=255), probs, target)
    by_hand = [
        (probs[n, :, i, j], target[n, i, j])
        for n in range(2)
        for i in range(4)
        for j in range(5)
        if target[n, i, j] != 255
    ]
    assert torch.equal(result, torch.stack([p for p, _ in by_hand]))
    assert torch.equal(labels, torch.stack([y for _, y in by_hand]))


def test_each_independent_label_is_an_item_with_two_classes():
    probs = torch.rand(6, 3, generator=generator())
    target = (torch.rand(6, 3, generator=generator()) < 0.5).float()
    pred = Predictive("classification", 1, probs=probs, targets=target)
    result, labels = labelled_items(pred, ll.Classification("multilabel"))
    by_hand = [
        (torch.stack([1 - p, p]), y)
        for row, label_row in zip(probs, target.long(), strict=True)
        for p, y in zip(row, label_row, strict=True)
    ]
    assert torch.equal(result, torch.stack([p for p, _ in by_hand]))
    assert torch.equal(labels, torch.stack([y for _, y in by_hand]))
    both = split_labels(probs, target.long())
    assert torch.equal(both[0], result)
    assert torch.equal(both[1], labels)


def test_binary_probs_sum_to_one_over_axis_1():
    probs = torch.rand(2, 3, 4, generator=generator())
    result = binary_probs(probs)
    assert result.shape == (2, 2, 3, 4)
    assert torch.equal(result[:, 1], probs)
    torch.testing.assert_close(result.sum(1), torch.ones(2, 3, 4))


@pytest.mark.parametrize(
    ("form", "target", "expected"),
    [
        ("multilabel", torch.zeros(4, 3).long(), True),  # integers: the form decides
        ("multiclass", torch.zeros(4, 3), False),
        (None, torch.zeros(4, 3), True),  # floating-point targets of the shape of `probs`
        (None, torch.zeros(4).long(), False),
        (None, torch.zeros(4, 1), False),
    ],
)
def test_which_labels_are_independent(form, target, expected):
    assert is_multilabel(ll.Classification(form), torch.rand(4, 3), target) == expected
    assert not is_multilabel(ll.LanguageModeling(), torch.rand(4, 3), target)


def test_the_form_of_a_prediction_completes_the_task_that_is_passed():
    carried = ll.Classification("multilabel", ignore_index=7).to_dict()
    pred = Predictive("classification", 1, probs=torch.rand(2, 3), task=carried)
    task = ll.Classification(ignore_index=9)
    used = prediction_task(pred, task)
    assert (used.form, used.ignore_index) == ("multilabel", 9)
    assert task.form is None  # the caller's task is unchanged
    assert prediction_task(pred).ignore_index == 7
    with pytest.raises(ll.ConfigError, match="pass task="):
        prediction_task(Predictive("custom", 1))


def test_a_mask_of_which_all_count_is_none():
    mask = torch.tensor([True, False])
    assert partial_mask(mask) is mask
    assert partial_mask(torch.tensor([True, True])) is None
    assert partial_mask(None) is None


@pytest.mark.parametrize("label", [-1, 3, 255])
def test_labels_out_of_range(label):
    require_labels(torch.tensor([0, 2]), 3, advice="pass task=")
    with pytest.raises(ll.DataError, match=f"expected 0 to 2, got {label}"):
        require_labels(torch.tensor([0, label, 2]), 3, advice="pass task=")


@pytest.mark.parametrize("pred", [{"probs": torch.rand(2, 2)}, {"targets": torch.zeros(2)}])
def test_predictions_without_probabilities_or_targets(pred):
    with pytest.raises(ll.DataError, match="probabilities and targets"):
        labelled_items(Predictive("classification", 1, **pred), ll.Classification())
