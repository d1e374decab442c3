"""Negative log-likelihoods of many outputs, against torch's own losses."""

import pytest
import torch
import torch.nn.functional as F

import lowland as ll
from lowland.evaluate.nll import (
    LogLikelihoodSums,
    log_likelihoods,
    nll_per_item,
    resolve_task,
    vmap_points,
)

N, B = 4, 6


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("classes", [3, 40])  # both sides of the limit for few classes
def test_classes(classes):
    logits = torch.randn(N, B, classes, generator=generator())
    labels = torch.randint(classes, (B,), generator=generator())
    labels[1] = -100
    result = nll_per_item(ll.Classification("multiclass"), logits, labels)
    expected = torch.stack([F.cross_entropy(z, labels, reduction="none") for z in logits])
    torch.testing.assert_close(result, expected)
    assert bool((result[:, 1] == 0).all())
    sums = log_likelihoods(ll.Classification("multiclass"), logits, labels, single=False)
    torch.testing.assert_close(sums, -expected.double().sum(1))
    assert sums.dtype == torch.float64
    alone = log_likelihoods(ll.Classification("multiclass"), logits[:1], labels, single=True)
    torch.testing.assert_close(alone, sums[:1])


def test_half_precision_is_widened():
    logits = torch.randn(N, B, 3, generator=generator()).bfloat16()
    labels = torch.randint(3, (B,), generator=generator())
    result = nll_per_item(ll.Classification("multiclass"), logits, labels)
    expected = [F.cross_entropy(z.float(), labels, reduction="none") for z in logits]
    torch.testing.assert_close(result, torch.stack(expected))


def test_regression():
    means, targets = (torch.randn(*s, 2, generator=generator()) for s in ((N, B), (B,)))
    task = ll.Regression(noise_variance=0.5)
    normal = torch.distributions.Normal(means, 0.5**0.5)
    expected = -normal.log_prob(targets).sum(2)
    torch.testing.assert_close(nll_per_item(task, means, targets), expected)


def test_functions_that_depend_on_values_are_mapped_one_by_one():
    def largest_if_positive(output):
        return {"value": output.max() if float(output.sum()) > 0 else output.min()}

    outputs = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    assert vmap_points(largest_if_positive, outputs)["value"].tolist() == [2.0, -2.0]


@pytest.mark.parametrize(
    ("outputs", "target", "form"),
    [
        ((N, B, 3), torch.zeros(B).long(), "multiclass"),
        ((N, B, 3), torch.zeros(B, 3), "multilabel"),
        ((N, B, 1), torch.zeros(B, 1).long(), "binary"),
    ],
)
def test_the_form_of_a_task_comes_from_the_targets(outputs, target, form):
    task = ll.Classification()
    assert resolve_task(task, torch.zeros(outputs), target).form == form
    assert task.form is None  # the caller's task is unchanged
    regression = ll.Regression()
    assert resolve_task(regression, torch.zeros(outputs), target) is regression


@pytest.mark.parametrize(
    ("target", "form"), [(torch.zeros(9, 3), "multilabel"), (torch.zeros(9).long(), "multiclass")]
)
def test_without_targets_it_comes_from_a_labelled_batch(target, form):
    example = lambda: ll.Batch((), {}, target)  # noqa: E731
    assert resolve_task(ll.Classification(), torch.zeros(N, B, 3), None, example).form == form


def test_sums_start_again_with_each_chunk():
    logits = torch.randn(2, N, B, 3, generator=generator())
    labels = torch.randint(3, (B,), generator=generator())
    sink = LogLikelihoodSums(ll.Classification("multiclass"))
    for _ in range(2):  # the second chunk has the sums of the first
        for index, part in enumerate(logits):
            sink.add(index, part, labels)
    expected = -torch.stack(
        [F.cross_entropy(z.double(), labels, reduction="sum") for z in logits.flatten(0, 1)]
    ).reshape(2, N)
    torch.testing.assert_close(sink.values, expected.sum(0), rtol=1e-6, atol=1e-6)
