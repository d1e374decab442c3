"""The pool of several predictions against the prediction of all their draws together."""

import pytest
import torch
from torch import nn

import lowland as ll
from tests.evaluate.test_predict import scattered, small
from tests.models import targets


def assert_close(pooled, whole):
    for name in ("probs", "mean", "variance", "entropy", "mutual_information", "target_log_prob"):
        a, b = getattr(pooled, name), getattr(whole, name)
        assert (a is None) == (b is None), name
        if a is not None:
            torch.testing.assert_close(a.double(), b.double(), atol=2e-6, rtol=1e-6, msg=name)
    expected = whole.metrics()
    for name, value in pooled.metrics().items():
        assert value == pytest.approx(expected[name], rel=1e-5, abs=1e-6), name
    assert pooled.samples == whole.samples


def test_classification():
    _, surface = small()
    weights = scattered(surface.layout, 9, 1.5)
    parts = [ll.predict(surface, w) for w in weights.view(3, 3, -1)]
    whole = ll.predict(surface, weights)
    assert_close(ll.pool(parts), whole)
    twin = sum(p.metrics()["nll"] for p in parts) / 3  # the mean of the metrics
    assert twin > ll.pool(parts).metrics()["nll"] + 0.01
    assert set(ll.pool(parts).metrics()) == set(whole.metrics())


def test_regression():
    data = targets()
    width = data[0][1].shape[1]
    net = nn.Linear(data[0][0].shape[1], 2 * width)
    surface = ll.LossSurface(net, ll.Regression(target_mean=3.0, target_std=2.0), data)
    weights = scattered(surface.layout, 8)
    parts = [ll.predict(surface, w) for w in weights.view(2, 4, -1)]
    assert_close(ll.pool(parts), ll.predict(surface, weights))


def test_the_pool_of_one_prediction_is_itself():
    _, surface = small()
    pred = ll.predict(surface, scattered(surface.layout, 2))
    assert_close(ll.pool([pred]), pred)


def test_predictions_of_other_examples_are_refused():
    _, surface = small()
    w = scattered(surface.layout, 1)
    pred = ll.predict(surface, w)
    fewer = ll.predict(surface, w, count=3)
    with pytest.raises(ll.DataError, match="different examples"):
        ll.pool([pred, fewer])
    with pytest.raises(ll.ConfigError, match="at least one"):
        ll.pool([])
    bare = ll.predict(surface, w, keep="none")
    with pytest.raises(ll.DataError, match="keep='probs'"):
        ll.pool([bare, bare])
