"""Risk-coverage curves against a loop, and where they are known."""

import math

import numpy as np
import pytest
import torch

import lowland as ll
from lowland.records import Predictive
from lowland.uncertainty.selective import risk_coverage


def random_prediction(n=200, classes=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    probs = (2 * torch.randn(n, classes, generator=g)).softmax(1)
    labels = torch.multinomial(probs, 1, generator=g)[:, 0]
    return Predictive("classification", 1, probs=probs, targets=labels)


def by_hand(uncertainty, wrong):
    """The error on the n most certain examples, one n at a time, without ties."""
    order = np.argsort(uncertainty)
    return [np.mean([wrong[i] for i in order[:n]]) for n in range(1, len(order) + 1)]


def test_against_a_loop():
    pred = random_prediction()
    record = ll.selective(pred)
    confidence = pred.probs.double().max(1).values.numpy()
    wrong = (pred.probs.argmax(1) != pred.targets).numpy()
    expected = by_hand(-confidence, wrong)
    np.testing.assert_allclose(record.risk, expected, atol=1e-12)
    np.testing.assert_allclose(record.coverage, np.arange(1, 201) / 200)
    assert record.aurc == pytest.approx(np.mean(expected))
    assert float(record.risk[-1]) == pytest.approx(wrong.mean())
    # the broken twin: the least certain first
    assert np.mean(by_hand(confidence, wrong)) > record.aurc + 0.05


def test_by_entropy():
    pred = random_prediction()
    p = pred.probs.double().numpy()
    wrong = (pred.probs.argmax(1) != pred.targets).numpy()
    expected = by_hand(-(p * np.log(p)).sum(1), wrong)
    np.testing.assert_allclose(ll.selective(pred, score="entropy").risk, expected, atol=1e-9)


@pytest.mark.parametrize(("n", "k"), [(10, 3), (1000, 1), (50, 0), (7, 7)])
def test_the_best_and_the_worst_order(n, k):
    wrong = torch.zeros(n)
    wrong[n - k :] = 1
    best = risk_coverage(torch.arange(n).float(), wrong)
    # wrong examples last: the error at n - k + j is j / (n - k + j)
    expected = sum(j / (n - k + j) for j in range(1, k + 1)) / n
    assert best.aurc == pytest.approx(expected)
    assert best.excess == pytest.approx(0, abs=1e-12)
    worst = risk_coverage(-torch.arange(n).float(), wrong)
    # wrong examples first: 1 up to k, then k / m
    assert worst.aurc == pytest.approx((k + sum(k / m for m in range(k + 1, n + 1))) / n)
    assert worst.excess >= best.excess
    error = k / n
    if n == 1000:  # Geifman et al.'s limit
        assert expected == pytest.approx(error + (1 - error) * math.log(1 - error), abs=1e-3)


def test_equally_certain_examples_have_their_mean_error():
    wrong = torch.tensor([1.0, 0.0, 0.0, 0.0])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):  # whatever order they come in
        assert risk_coverage(torch.zeros(4), wrong[order]).risk.tolist() == [0.25] * 4
    u = torch.tensor([0.0, 1.0, 1.0, 2.0])
    a = risk_coverage(u, torch.tensor([0.0, 1.0, 0.0, 0.0]))
    b = risk_coverage(u, torch.tensor([0.0, 0.0, 1.0, 0.0]))
    assert a.risk.tolist() == b.risk.tolist() == pytest.approx([0, 0.25, 1 / 3, 0.25])


def test_the_aurc_of_a_random_order_is_the_error():
    g = torch.Generator().manual_seed(0)
    wrong = (torch.rand(20000, generator=g) < 0.3).double()
    record = risk_coverage(torch.rand(20000, generator=g), wrong)
    assert record.aurc == pytest.approx(0.3, abs=0.02)


def test_each_independent_label_is_an_item():
    probs, labels = torch.rand(6, 3, generator=torch.Generator().manual_seed(0)), torch.ones(6, 3)
    pred = Predictive("classification", 1, probs=probs, targets=labels)
    record = ll.selective(pred, task=ll.Classification("multilabel"))
    assert len(record.risk) == 18
    assert float(record.risk[-1]) == pytest.approx(float((probs <= 0.5).double().mean()))
    with pytest.raises(ll.ConfigError, match="has 6 values, and 18 labels"):
        ll.selective(pred, score="entropy", task=ll.Classification("multilabel"))


def test_predictions_without_a_risk_coverage_curve():
    with pytest.raises(ll.DataError, match="probabilities and targets"):
        ll.selective(Predictive("classification", 1, probs=torch.rand(2, 2)))
    with pytest.raises(
        ll.ConfigError, match=r"score: expected one of .*, got 'mutual information'"
    ):
        ll.selective(random_prediction(), score="mutual information")
    with pytest.raises(ll.DataError, match="no examples"):
        risk_coverage(torch.zeros(0), torch.zeros(0))
