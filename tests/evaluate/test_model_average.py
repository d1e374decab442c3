"""Running sums over samples, against sums in float64."""

import math

import pytest
import torch

import lowland as ll
from lowland.evaluate.model_average import ModelAverage, require_same_labelling

S, B, C = 7, 5, 3


def outputs():
    g = torch.Generator().manual_seed(0)
    return 3 * torch.randn(S, B, C, generator=g), torch.randint(C, (B,), generator=g)


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_sums_do_not_depend_on_the_chunk(chunk):
    logits, labels = outputs()
    average = ModelAverage(ll.Classification(), keep="probs", errors=True)
    for first in range(0, S, chunk):
        part = logits[first : first + chunk]
        average.add(0, part, labels)
        average.end(first, len(part))
    assert average.samples == S
    batch = average.batches[0]
    log_probs = logits.double().log_softmax(2)
    label_log_probs = log_probs[:, torch.arange(B), labels]  # (S, B)
    expected = label_log_probs.logsumexp(0) - math.log(S)
    torch.testing.assert_close(batch.log_prob(S), expected, rtol=1e-6, atol=1e-7)
    running = label_log_probs.logcumsumexp(0).sum(1)
    torch.testing.assert_close(average.log_probs, running.tolist(), rtol=1e-6, atol=1e-6)
    probs = log_probs.exp().cumsum(0)
    errors = [float((p.argmax(1) != labels).double().mean()) for p in probs]
    assert average.errors.errors == pytest.approx(errors)
    torch.testing.assert_close(batch.means(S)["probs"].double(), probs[-1] / S, rtol=0, atol=1e-6)


def test_the_total_variance_of_a_regression():
    g = torch.Generator().manual_seed(0)
    means = torch.randn(S, B, 1, generator=g)
    average = ModelAverage(ll.Regression(noise_variance=0.5))
    for first in range(0, S, 2):
        average.add(0, means[first : first + 2], torch.zeros(B, 1))
        average.end(first, len(means[first : first + 2]))
    moments = average.batches[0].means(S)
    expected = 0.5 + means.double().var(0, correction=0)
    torch.testing.assert_close(moments["variance"].double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(moments["mean"].double(), means.double().mean(0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_sample_that_is_not_finite_is_named(labelled):
    logits, labels = outputs()
    logits[4, 2] = math.nan
    average = ModelAverage(ll.Classification("multiclass"))
    average.add(0, logits[:3], labels if labelled else None)
    average.end(0, 3)
    average.add(0, logits[3:], labels if labelled else None)
    with pytest.raises(ll.NonFiniteError, match="draw 4 has"):
        average.end(3, 4)


def test_batches_with_and_without_targets_are_not_mixed():
    require_same_labelling(None, None)
    require_same_labelling(torch.zeros(1), torch.zeros(2))
    with pytest.raises(ll.DataError, match="some batches have targets"):
        require_same_labelling(None, torch.zeros(1))
