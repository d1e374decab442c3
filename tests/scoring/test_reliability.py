"""Bins of confidence against loops by hand."""

import pytest
import torch

import lowland as ll
from lowland.scoring.reliability import ReliabilitySums
from tests.scoring.test_metric_sums import random_predictions


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bins", [4, 5, 10, 15, 20])
def test_a_confidence_on_an_edge_is_in_the_bin_above(bins, dtype):
    for i in range(bins // 2 + 1, bins + 1):
        c = torch.tensor(i / bins, dtype=dtype)
        result = ll.reliability(torch.stack([c, 1 - c])[None], torch.tensor([0]), bins=bins)
        assert result.count.argmax() == min(i, bins - 1), i
        below = torch.nextafter(c, torch.tensor(0.0, dtype=dtype))
        result = ll.reliability(torch.stack([below, 1 - below])[None], torch.tensor([0]), bins=bins)
        assert result.count.argmax() == i - 1, i


def test_reliability_by_hand():
    probs, labels = random_predictions()
    result = ll.reliability(probs, labels, bins=7)
    confidence, predicted = probs.max(1)
    for b in range(7):
        inside = (confidence > b / 7) & (confidence <= (b + 1) / 7)
        assert result.count[b] == inside.sum()
        if inside.any():
            assert float(result.confidence[b]) == pytest.approx(
                float(confidence[inside].mean()), rel=1e-5
            )
            right = (predicted == labels)[inside].double().mean()
            assert float(result.accuracy[b]) == pytest.approx(float(right))
        else:
            assert result.confidence[b].isnan()
            assert result.accuracy[b].isnan()
    assert result.count.sum() == 500


def test_bins_of_equal_count():
    probs, labels = random_predictions(n=103)
    result = ll.reliability(probs, labels, bins=10, equal="count")
    assert set(result.count.tolist()) == {10, 11}
    order = probs.max(1).values.sort().values.double()
    torch.testing.assert_close(result.confidence[0], order[: int(result.count[0])].mean())
    assert bool((result.confidence.diff() > 0).all())
    correct = float((result.accuracy * result.count).sum())
    assert correct == pytest.approx(float((probs.argmax(1) == labels).sum()))
    for wrong in ({"bins": 0}, {"equal": "mass"}):
        with pytest.raises(ll.ConfigError):
            ll.reliability(probs, labels, **wrong)


def test_sums_over_batches_do_not_lose_digits():
    """A million confidences, added in float32 one by one, would stop growing."""
    sums = ReliabilitySums(bins=1)
    confidence = torch.full((1000,), 0.9)
    for _ in range(1000):
        sums.add(confidence, torch.ones(1000, dtype=torch.bool))
    assert sums.count.tolist() == [1_000_000]
    assert float(sums.reliability.confidence) == pytest.approx(float(confidence[0]), abs=1e-12)
    assert float(sums.reliability.accuracy) == 1.0


def test_probabilities_alone_need_labels():
    with pytest.raises(ll.ConfigError, match="labels"):
        ll.reliability(torch.tensor([[0.5, 0.5]]))
    with pytest.raises(ll.DataError, match="expected 0 to 1, got 2"):
        ll.reliability(torch.tensor([[0.5, 0.5]]), torch.tensor([2]))
