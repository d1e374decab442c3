"""Metrics against scikit-learn, torchmetrics and loops by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

import lowland as ll
from lowland.scoring.metric_sums import ClassificationSums, labelled_fields

TASK = ll.Classification()


def metrics(*args):
    return labelled_fields(*args)["metric_values"]


def random_predictions(n=500, classes=4, seed=0, sharp=2.0):
    g = torch.Generator().manual_seed(seed)
    probs = (sharp * torch.randn(n, classes, generator=g)).softmax(1)
    noisy = (probs.log() + torch.randn(n, classes, generator=g)).softmax(1)
    return probs, torch.multinomial(noisy, 1, generator=g)[:, 0]


def classification_metrics(probs, labels, task=TASK):
    log_prob = probs.gather(1, labels[:, None])[:, 0].log()
    return metrics(task, {"probs": probs}, log_prob, labels)


def ece_by_hand(probs, labels, bins=15):
    confidence, predicted = probs.double().max(1)
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            gap = (predicted[inside] == labels[inside]).double().mean() - confidence[inside].mean()
            total += float(inside.double().mean() * gap.abs())
    return total


def ece_of_torchmetrics(probs, labels, bins=15):
    # imported where it runs: this takes seconds where transformers is installed
    from torchmetrics.functional.classification import multiclass_calibration_error

    return float(multiclass_calibration_error(probs, labels, probs.shape[1], n_bins=bins))


@pytest.mark.parametrize("classes", [2, 4, 30])
def test_classification(classes):
    probs, labels = random_predictions(classes=classes)
    result = classification_metrics(probs, labels)
    p, y = (probs.double() / probs.double().sum(1, keepdim=True)).numpy(), labels.numpy()
    assert result["accuracy"] == pytest.approx(accuracy_score(y, p.argmax(1)))
    assert result["nll"] == pytest.approx(log_loss(y, p, labels=range(classes)), rel=1e-5)
    hot = np.eye(classes)[y]
    assert result["brier"] == pytest.approx(((p - hot) ** 2).sum(1).mean(), abs=1e-6)
    if classes == 2:  # scikit-learn's sums over one class
        assert result["brier"] == pytest.approx(2 * brier_score_loss(y, p[:, 1]), abs=1e-6)
    assert result["ece"] == pytest.approx(ece_by_hand(probs, labels), abs=1e-6)
    assert result["ece"] == pytest.approx(ece_of_torchmetrics(probs, labels), abs=1e-6)
    assert result["ece"] == pytest.approx(ll.reliability(probs, labels).ece, abs=1e-6)


def test_a_confidence_of_one_is_in_the_last_bin():
    """torchmetrics has a separate bin, a sixteenth, for 1.0, where saturated networks are."""
    probs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.95, 0.05], [0.96, 0.04]])
    labels = torch.tensor([0, 1, 0, 0])
    assert classification_metrics(probs, labels)["ece"] == pytest.approx(
        ece_by_hand(probs, labels), abs=1e-6
    )
    assert classification_metrics(probs, labels)["ece"] == pytest.approx(
        abs(0.75 - 3.91 / 4), abs=1e-6
    )
    assert ece_of_torchmetrics(probs, labels) > 0.27


def confident(n, seed=0):
    """Two classes with 99.8% confidence, and right as often."""
    g = torch.Generator().manual_seed(seed)
    confidence = 0.998 + 0.002 * torch.rand(n, generator=g)
    labels = (torch.rand(n, generator=g) > 0.998).long()
    return torch.stack([confidence, 1 - confidence], 1), labels


@pytest.mark.parametrize("n", [100_000, 1_000_000])
def test_every_sum_over_examples_is_in_float64(n):
    """Confidences added in float32, one by one, stop growing: the ECE of a million is then 0.003
    where 0.001 is right."""
    probs, labels = confident(n)
    result = classification_metrics(probs, labels)
    assert result["ece"] == pytest.approx(ll.reliability(probs, labels).ece, abs=1e-12)
    p, y = probs.double().numpy(), labels.numpy()
    gap = p.max(1).mean() - (p.argmax(1) == y).mean()  # all are in the last bin
    assert result["ece"] == pytest.approx(abs(gap), abs=1e-12)
    assert result["accuracy"] == pytest.approx((p.argmax(1) == y).mean(), abs=1e-15)
    brier = ((p - np.eye(2)[y]) ** 2).sum(1).mean()
    assert result["brier"] == pytest.approx(brier, abs=1e-12)
    assert abs(ece_of_torchmetrics(probs, labels) - abs(gap)) > 1e-4


def test_batches_give_what_all_examples_at_once_give():
    """Sums over batches, as for data sets whose probabilities are not held."""
    sums = ClassificationSums()
    parts = [confident(200_000, seed=seed) for seed in range(20)]
    for probs, labels in parts:
        sums.add(TASK, probs, labels)
    probs, labels = (torch.cat(each) for each in zip(*parts, strict=True))
    once = classification_metrics(probs, labels)
    for name, value in sums.metrics().items():
        assert value == pytest.approx(once[name], abs=1e-12), name
    assert sums.reliability.ece == sums.metrics()["ece"]


def test_ignored_labels_do_not_count():
    probs, labels = random_predictions()
    masked = torch.cat([labels, torch.full((50,), -100)])
    padded = torch.cat([probs, torch.full((50, 4), 0.25)])
    log_prob = probs.gather(1, labels[:, None])[:, 0].log()
    result = metrics(TASK, {"probs": padded}, log_prob, masked)
    assert result == pytest.approx(classification_metrics(probs, labels))


def test_every_independent_label_is_in_a_bin():
    g = torch.Generator().manual_seed(0)
    probs = torch.rand(200, 3, generator=g)
    labels = (torch.rand(200, 3, generator=g) < probs).float()
    log_prob = torch.where(labels == 1, probs, 1 - probs).log().sum(1)
    result = metrics(ll.Classification("multilabel"), {"probs": probs}, log_prob, labels)
    flat, y = probs.reshape(-1), labels.reshape(-1).long()
    pairs = torch.stack([1 - flat, flat], 1)
    assert result["ece"] == pytest.approx(ece_by_hand(pairs, y), abs=1e-6)
    assert result["accuracy"] == pytest.approx(((flat > 0.5) == y).double().mean().item())
    assert result["brier"] == pytest.approx(((probs - labels) ** 2).sum(1).mean().item(), rel=1e-5)


def test_a_perplexity_may_be_infinite():
    probs = torch.tensor([[1.0, 0.0]])
    result = metrics(
        ll.LanguageModeling(), {"probs": probs}, torch.tensor([-1000.0]), torch.tensor([1])
    )
    assert result["perplexity"] == float("inf")
