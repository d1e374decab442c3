"""Targets drawn from likelihoods: frequencies, moments and forms."""

import pytest
import torch

import lowland as ll
from lowland.curvature.target_samples import sample_targets

N = 20_000


def generator():
    return torch.Generator().manual_seed(0)


def test_classes_come_as_often_as_their_probabilities():
    logits = torch.tensor([0.0, 1.0, -1.0]).expand(N, 3)
    labels = sample_targets(
        ll.Classification(), logits, torch.zeros(N).long(), generator=generator()
    )
    frequencies = torch.bincount(labels, minlength=3) / N
    torch.testing.assert_close(frequencies, logits[0].softmax(0), rtol=0, atol=0.015)


@pytest.mark.parametrize("shape", [(N,), (N, 1)])
def test_binary_labels_have_the_form_of_the_target(shape):
    logits = torch.full((N, 1), 0.7)
    labels = sample_targets(
        ll.Classification(), logits, torch.zeros(shape).long(), generator=generator()
    )
    assert labels.shape == shape
    assert labels.dtype == torch.int64
    assert float(labels.double().mean()) == pytest.approx(0.668, abs=0.015)


def test_several_labels_are_independent():
    logits = torch.tensor([2.0, -2.0]).expand(N, 2)
    labels = sample_targets(
        ll.Classification("multilabel"), logits, torch.zeros(N, 2), generator=generator()
    )
    torch.testing.assert_close(labels.mean(0), logits[0].sigmoid(), rtol=0, atol=0.015)


@pytest.mark.parametrize("class_dim", [1, -1])
def test_positions_that_do_not_count_stay(class_dim):
    logits = torch.zeros(4, 3, 5)
    logits[:, 2] = 100.0
    target = torch.zeros(4, 5).long()
    target[0, 0] = -100
    task = ll.Classification(class_dim=class_dim)
    labels = sample_targets(task, logits.movedim(1, class_dim), target, generator=generator())
    expected = torch.full((4, 5), 2)
    expected[0, 0] = -100
    assert torch.equal(labels, expected)


def test_tokens_stand_where_the_likelihood_predicts_them():
    logits = torch.zeros(2, 4, 7)
    logits[:, 0, 5] = logits[:, 1, 6] = logits[:, 2, 1] = 100.0
    labels = torch.tensor([[3, 0, 0, 0], [3, 0, -100, 0]])
    samples = sample_targets(ll.LanguageModeling(), logits, labels, generator=generator())
    assert samples.tolist() == [[3, 5, 6, 1], [3, 5, -100, 1]]


def test_gaussian_targets_have_mean_and_variance():
    output = torch.tensor([[1.0, 2.0]]).expand(N, 2)
    task = ll.Regression()
    samples = sample_targets(task, output, torch.zeros(N, 1), generator=generator())
    mean, variance = (float(part[0]) for part in task.moments(output))
    assert float(samples.mean()) == pytest.approx(mean, abs=0.03)
    assert float(samples.var()) == pytest.approx(variance, rel=0.05)


def test_a_likelihood_of_ones_own_cannot_be_drawn_from():
    class Own(ll.Task):
        def nll(self, output, target):
            return output[:, 0]

    with pytest.raises(ll.ConfigError, match="likelihood, which Own cannot; take kind="):
        sample_targets(Own(), torch.zeros(2, 1), torch.zeros(2), generator=generator())
