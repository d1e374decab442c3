"""Predictions from averages of groups of batches, against one average of all."""

import pytest
import torch

import lowland as ll
from lowland.evaluate.model_average import ModelAverage
from lowland.evaluate.predictive_builder import PredictiveBuilder, concatenate, is_per_item
from lowland.records import Predictive

S, C = 4, 3


def batches():
    g = torch.Generator().manual_seed(0)
    return [
        (2 * torch.randn(S, n, C, generator=g), torch.randint(C, (n,), generator=g))
        for n in (5, 2, 6)
    ]


def averaged(groups, keep):
    builder, task = PredictiveBuilder(keep), ll.Classification()
    for group in groups:
        average = ModelAverage(task, keep=keep, errors=True)
        for index, (logits, labels) in enumerate(group):
            average.add(index, logits, labels)
        average.end(0, S)
        builder.add(average)
        task = average.task
    return builder.predictive()


@pytest.mark.parametrize("keep", ["probs", "target", "none"])
def test_groups_of_batches_give_what_all_batches_give(keep):
    data = batches()
    at_once, by_group = averaged([data], keep), averaged([data[:1], data[1:]], keep)
    assert by_group.metrics() == pytest.approx(at_once.metrics(), abs=1e-12)
    torch.testing.assert_close(by_group.nll_by_samples, at_once.nll_by_samples)
    torch.testing.assert_close(by_group.error_by_samples, at_once.error_by_samples)
    for name in ("probs", "targets", "entropy", "target_log_prob"):
        first, second = getattr(at_once, name), getattr(by_group, name)
        assert (first is None) == (second is None)
        if first is not None:
            assert torch.equal(first, second)


def test_the_fields_by_hand():
    pred = averaged([batches()], "probs")
    probs = torch.cat([z.double().softmax(2).mean(0) for z, _ in batches()])
    labels = torch.cat([y for _, y in batches()])
    torch.testing.assert_close(pred.probs.double(), probs, rtol=0, atol=1e-6)
    entropy = -(probs * probs.log()).sum(1)
    torch.testing.assert_close(pred.entropy.double(), entropy, rtol=1e-5, atol=1e-6)
    each = torch.cat([z.double().softmax(2) for z, _ in batches()], 1)
    information = entropy + (each * each.log()).sum(2).mean(0)
    torch.testing.assert_close(pred.mutual_information.double(), information, rtol=1e-4, atol=1e-6)
    nll = -probs.gather(1, labels[:, None]).log().mean()
    assert pred.metrics()["nll"] == pytest.approx(float(nll), rel=1e-6)
    assert isinstance(pred, Predictive)
    assert pred.samples == S


def test_images_of_several_sizes_become_positions():
    parts = [torch.arange(24.0).reshape(1, 2, 3, 4), torch.arange(8.0).reshape(1, 2, 2, 2)]
    result = concatenate(parts, lambda shape: 1)
    expected = torch.cat([part.movedim(1, -1).reshape(-1, 2) for part in parts])
    assert torch.equal(result, expected)
    same = [torch.zeros(2, 3), torch.ones(1, 3)]
    assert torch.equal(concatenate(same, lambda shape: 1), torch.cat(same))


def test_tasks_with_metrics_of_their_own_need_all_batches():
    class Own(ll.Classification):
        def metrics(self, averages, target):
            return {}

    assert is_per_item(ll.Classification())
    assert is_per_item(ll.LanguageModeling())
    assert not is_per_item(Own())
    assert not is_per_item(ll.Regression())
