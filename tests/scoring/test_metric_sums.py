"""Figures against scikit-learn, torchmetrics and loops by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

import lowland as ll
from lowland.scoring.metric_sums import ClassificationSums, labelled_fields

TASK = ll.Classification()


def figures(*args):
    return labelled_fields(*args)["metric_values"]


def drawn(n=500, classes=4, seed=0, sharp=2.0):
    g = torch.Generator().manual_seed(seed)
    probs = (sharp * torch.randn(n, classes, generator=g)).softmax(1)
    noisy = (probs.log() + torch.randn(n, classes, generator=g)).softmax(1)
    return probs, torch.multinomial(noisy, 1, generator=g)[:, 0]


def of(probs, labels, task=TASK):
    log_prob = probs.gather(1, labels[:, None])[:, 0].log()
    return figures(task, {"probs": probs}, log_prob, labels)


def ece_by_hand(probs, labels, bins=15):
    confidence, chosen = probs.double().max(1)
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            gap = (chosen[inside] == labels[inside]).double().mean() - confidence[inside].mean()
            total += float(inside.double().mean() * gap.abs())
    return total


@pytest.mark.parametrize("classes", [2, 4, 30])
def test_classification(classes):
    probs, labels = drawn(classes=classes)
    found = of(probs, labels)
    p, y = (probs.double() / probs.double().sum(1, keepdim=True)).numpy(), labels.numpy()
    assert found["accuracy"] == pytest.approx(accuracy_score(y, p.argmax(1)))
    assert found["nll"] == pytest.approx(log_loss(y, p, labels=range(classes)), rel=1e-5)
    hot = np.eye(classes)[y]
    assert found["brier"] == pytest.approx(((p - hot) ** 2).sum(1).mean(), abs=1e-6)
    if classes == 2:  # scikit-learn's sums over one class
        assert found["brier"] == pytest.approx(2 * brier_score_loss(y, p[:, 1]), abs=1e-6)
    assert found["ece"] == pytest.approx(ece_by_hand(probs, labels), abs=1e-6)
    reference = multiclass_calibration_error(probs, labels, classes, n_bins=15)
    assert found["ece"] == pytest.approx(float(reference), abs=1e-6)
    assert found["ece"] == pytest.approx(ll.reliability(probs, labels).ece, abs=1e-6)


def test_certainty_is_in_the_last_bin():
    """torchmetrics gives 1.0 a bin of its own, a sixteenth, and saturated networks are there."""
    probs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.95, 0.05], [0.96, 0.04]])
    labels = torch.tensor([0, 1, 0, 0])
    assert of(probs, labels)["ece"] == pytest.approx(ece_by_hand(probs, labels), abs=1e-6)
    assert of(probs, labels)["ece"] == pytest.approx(abs(0.75 - 3.91 / 4), abs=1e-6)
    assert float(multiclass_calibration_error(probs, labels, 2, n_bins=15)) > 0.27


def confident(n, seed=0):
    """Two classes, 99.8% sure and right as often."""
    g = torch.Generator().manual_seed(seed)
    sure = 0.998 + 0.002 * torch.rand(n, generator=g)
    labels = (torch.rand(n, generator=g) > 0.998).long()
    return torch.stack([sure, 1 - sure], 1), labels


@pytest.mark.parametrize("n", [100_000, 1_000_000])
def test_every_sum_over_examples_is_in_float64(n):
    """Confidences added in float32, one by one, stop growing: the ECE of a million is then 0.003
    where 0.001 is right."""
    probs, labels = confident(n)
    found = of(probs, labels)
    assert found["ece"] == pytest.approx(ll.reliability(probs, labels).ece, abs=1e-12)
    p, y = probs.double().numpy(), labels.numpy()
    gap = p.max(1).mean() - (p.argmax(1) == y).mean()  # all are in the last bin
    assert found["ece"] == pytest.approx(abs(gap), abs=1e-12)
    assert found["accuracy"] == pytest.approx((p.argmax(1) == y).mean(), abs=1e-15)
    brier = ((p - np.eye(2)[y]) ** 2).sum(1).mean()
    assert found["brier"] == pytest.approx(brier, abs=1e-12)
    twin = multiclass_calibration_error(probs, labels, 2, n_bins=15)
    assert abs(float(twin) - abs(gap)) > 1e-4


def test_batches_give_what_all_examples_at_once_give():
    """Sums over batches, as for data sets whose probabilities are not held."""
    sums = ClassificationSums()
    parts = [confident(200_000, seed=seed) for seed in range(20)]
    for probs, labels in parts:
        sums.add(TASK, probs, labels)
    probs, labels = (torch.cat(each) for each in zip(*parts, strict=True))
    once = of(probs, labels)
    for name, value in sums.metrics().items():
        assert value == pytest.approx(once[name], abs=1e-12), name
    assert sums.reliability.ece == sums.metrics()["ece"]


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
    probs, labels = drawn()
    result = ll.reliability(probs, labels, bins=7)
    confidence, chosen = probs.max(1)
    for b in range(7):
        inside = (confidence > b / 7) & (confidence <= (b + 1) / 7)
        assert result.count[b] == inside.sum()
        if inside.any():
            assert float(result.confidence[b]) == pytest.approx(
                float(confidence[inside].mean()), rel=1e-5
            )
            right = (chosen == labels)[inside].double().mean()
            assert float(result.accuracy[b]) == pytest.approx(float(right))
        else:
            assert result.confidence[b].isnan()
            assert result.accuracy[b].isnan()
    assert result.count.sum() == 500


def test_bins_of_equal_count():
    probs, labels = drawn(n=103)
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


def test_labels_that_do_not_count_do_not_count():
    probs, labels = drawn()
    masked = torch.cat([labels, torch.full((50,), -100)])
    padded = torch.cat([probs, torch.full((50, 4), 0.25)])
    log_prob = probs.gather(1, labels[:, None])[:, 0].log()
    found = figures(TASK, {"probs": padded}, log_prob, masked)
    assert found == pytest.approx(of(probs, labels))


def test_multilabel_bins_every_label():
    g = torch.Generator().manual_seed(0)
    probs = torch.rand(200, 3, generator=g)
    labels = (torch.rand(200, 3, generator=g) < probs).float()
    log_prob = torch.where(labels == 1, probs, 1 - probs).log().sum(1)
    found = figures(ll.Classification("multilabel"), {"probs": probs}, log_prob, labels)
    flat, y = probs.reshape(-1), labels.reshape(-1).long()
    pairs = torch.stack([1 - flat, flat], 1)
    assert found["ece"] == pytest.approx(ece_by_hand(pairs, y), abs=1e-6)
    assert found["accuracy"] == pytest.approx(((flat > 0.5) == y).double().mean().item())
    assert found["brier"] == pytest.approx(((probs - labels) ** 2).sum(1).mean().item(), rel=1e-5)


def test_a_perplexity_may_be_infinite():
    probs = torch.tensor([[1.0, 0.0]])
    found = figures(
        ll.LanguageModeling(), {"probs": probs}, torch.tensor([-1000.0]), torch.tensor([1])
    )
    assert found["perplexity"] == float("inf")
