"""Slices of a prediction against a prediction of the slice."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.evaluate.slicing import slice_examples
from lowland.records import Predictive
from tests.evaluate.test_predict import scattered, small

FIELDS = ("probs", "entropy", "mutual_information", "targets", "target_log_prob")


def data(form):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(20, 6, generator=g)
    y = torch.randint(3, (20,), generator=g)
    if form == "multilabel":
        return x, torch.randint(2, (20, 3), generator=g).float()
    if form == "ignored":
        y[[0, 3, 8, 9, 15]] = -100
    return x, y


def test_a_slice_of_a_regression_has_its_means_and_no_metrics():
    mean, variance = torch.arange(5.0)[:, None], torch.ones(5, 1)
    pred = Predictive("regression", 3, mean=mean, variance=variance, metric_values={"rmse": 1.0})
    result = slice_examples(pred, 1, 3)
    assert torch.equal(result.mean, mean[1:3])
    assert (len(result.variance), result.metrics()) == (2, {})


@pytest.mark.parametrize("form", ["multiclass", "multilabel", "ignored"])
@pytest.mark.parametrize(("start", "stop"), [(0, 20), (4, 13), (13, 20)])
def test_a_slice_is_the_prediction_of_its_examples(form, start, stop):
    x, y = data(form)
    task = ll.Classification("multilabel" if form == "multilabel" else None)
    _, surface = small([(x, y)], task, nn.Linear(6, 3))
    weights = scattered(surface.layout, 4)
    result = slice_examples(ll.predict(surface, weights), start, stop, task=task)
    expected = ll.predict(surface, weights, [(x[start:stop], y[start:stop])])
    for name in FIELDS:
        torch.testing.assert_close(getattr(result, name), getattr(expected, name), msg=name)
    assert result.metrics() == pytest.approx(expected.metrics(), rel=1e-5)
    torch.testing.assert_close(
        result.reliability["count"], expected.reliability["count"], equal_nan=True
    )


def test_examples_without_targets():
    x, _ = data("multiclass")
    _, surface = small()
    pred = ll.predict(surface, scattered(surface.layout, 2), [x])
    result = slice_examples(pred, 2, 5)
    assert torch.equal(result.entropy, pred.entropy[2:5])
    assert result.metrics() == {}
    with pytest.raises(ll.DataError, match="keep='probs'"):
        slice_examples(ll.predict(surface, scattered(surface.layout, 2), [x], keep="none"), 0, 1)
