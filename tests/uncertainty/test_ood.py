"""AUROC and FPR95 against scikit-learn and counting pairs; noise against its moments."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import lowland as ll
from lowland.records import Predictive


def predictive(n, sharp, seed, samples=4, classes=5):
    """Averages of several softmaxes."""
    z = sharp * torch.randn(samples, n, classes, generator=torch.Generator().manual_seed(seed))
    p = z.double().softmax(2)
    mean = p.mean(0)
    entropy = -(mean * mean.log()).sum(1)
    expected = -(p * p.log()).sum(2).mean(0)
    information = entropy - expected
    return Predictive(
        "classification", samples, probs=mean, entropy=entropy, mutual_information=information
    )


def by_hand(pred):
    p = pred.probs.numpy()
    return {
        "entropy": -(p * np.log(p)).sum(1),
        "max probability": 1 - p.max(1),
        "mutual information": pred.mutual_information.numpy(),
    }


def fpr95_by_hand(inside, outside):
    """At the least threshold that accepts 95% of the in-distribution examples, by trying all."""
    least = min(t for t in inside if np.mean(inside <= t) >= 0.95)
    return np.mean(outside <= least)


@pytest.mark.parametrize("sizes", [(400, 300), (20, 7), (1, 3)])
def test_auroc_and_fpr95_against_references(sizes):
    pred_in, pred_out = predictive(sizes[0], 4.0, 0), predictive(sizes[1], 2.0, 1)
    table = ll.ood(pred_in, pred_out)
    assert table.score == ["entropy", "max probability", "mutual information"]
    labels = np.repeat([0, 1], sizes)
    for i, score in enumerate(table.score):
        inside, outside = by_hand(pred_in)[score], by_hand(pred_out)[score]
        both = np.concatenate([inside, outside])
        assert float(table.auroc[i]) == pytest.approx(roc_auc_score(labels, both), abs=1e-6)
        pairs = np.sign(outside[:, None] - inside[None]) / 2 + 0.5
        assert float(table.auroc[i]) == pytest.approx(pairs.mean(), abs=1e-6)
        assert float(table.fpr95[i]) == pytest.approx(fpr95_by_hand(inside, outside), abs=1e-12)


def test_ties_count_half():
    p = torch.tensor([[0.9, 0.1]] * 6 + [[0.6, 0.4]] * 4)
    one, other = (Predictive("classification", 1, probs=q) for q in (p, p.flip(0)))
    assert ll.ood(one, other).auroc.tolist() == pytest.approx([0.5, 0.5])
    assert ll.ood(one, other).fpr95.tolist() == [1.0, 1.0]
    uniform = Predictive("classification", 1, probs=torch.full((5, 2), 0.5))
    table = ll.ood(one, uniform)
    assert table.auroc.tolist() == [1.0, 1.0]
    assert table.fpr95.tolist() == [0.0, 0.0]
    assert ll.ood(uniform, one).auroc.tolist() == [0.0, 0.0]


def test_auroc_of_many_examples_is_exact():
    """A curve in float32 is right to seven digits; ranks are integers."""
    g = torch.Generator().manual_seed(0)
    each = [torch.randint(top, (300_001,), generator=g).double() for top in (700, 701)]
    low, high = (
        Predictive("classification", 1, probs=torch.full((5, 2), 0.5), entropy=e) for e in each
    )
    counts = [e.long().bincount(minlength=701) for e in each]
    below = counts[0].cumsum(0) - counts[0]
    doubled = int((counts[1] * (2 * below + counts[0])).sum())
    assert float(ll.ood(low, high).auroc[0]) == doubled / 2 / 300_001**2


def test_scores_that_differ_in_their_last_bits_are_not_ties():
    """torchmetrics takes scores above 1 for logits: through a sigmoid in float32 they would be."""
    entropy = 20 + 1e-9 * torch.arange(10, dtype=torch.float64)
    probs = torch.full((5, 2), 0.5)
    low, high = (
        Predictive("classification", 1, probs=probs, entropy=e) for e in (entropy[:5], entropy[5:])
    )
    assert float(ll.ood(low, high).auroc[0]) == 1.0


def test_one_sample_has_no_mutual_information():
    pred = predictive(10, 1.0, 0, samples=1)
    assert ll.ood(pred, pred).score == ["entropy", "max probability"]
    assert "mutual information" in ll.uncertainties(predictive(10, 1.0, 0))


def test_a_scaled_prediction_has_a_new_entropy():
    pred = predictive(30, 3.0, 0)
    tempered = ll.temper(pred, 2.0)
    p = tempered.probs
    expected = -(p * p.log()).sum(1)
    torch.testing.assert_close(ll.uncertainties(tempered)["entropy"], expected)
    assert float(expected.mean()) > float(pred.entropy.mean())


def test_the_score_of_a_regression_is_its_variance():
    near, far = (
        Predictive("regression", 3, mean=torch.zeros(4, 2), variance=v * torch.ones(4, 2))
        for v in (1.0, 9.0)
    )
    table = ll.ood(near, far)
    assert table.score == ["variance"]
    assert table.auroc.tolist() == [1.0]
    torch.testing.assert_close(
        ll.uncertainties(far)["variance"], torch.full((4,), math.log(9.0), dtype=torch.float64)
    )


def test_dense_and_multilabel_predictions():
    dense = torch.tensor([[[0.9, 0.5], [0.1, 0.5]]])  # (1, 2 classes, 2 positions)
    scores = ll.uncertainties(Predictive("classification", 1, probs=dense))
    assert float(scores["max probability"]) == pytest.approx((0.1 + 0.5) / 2)
    labels = Predictive("classification", 1, probs=torch.tensor([[0.9, 0.9], [0.5, 0.1]]))
    scores = ll.uncertainties(labels, task=ll.Classification("multilabel"))
    np.testing.assert_allclose(scores["max probability"], [0.1, 0.3], atol=1e-6)
    h = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (0.9, 0.5, 0.1)]
    np.testing.assert_allclose(scores["entropy"], [2 * h[0], h[1] + h[2]], atol=1e-6)


def test_predictions_that_cannot_be_compared():
    probs = Predictive("classification", 1, probs=torch.full((2, 2), 0.5))
    with pytest.raises(ll.DataError, match="keep='probs'"):
        ll.ood(Predictive("classification", 1), probs)
    regression = Predictive("regression", 1, mean=torch.zeros(2, 1), variance=torch.ones(2, 1))
    with pytest.raises(ll.DataError, match="no score in common"):
        ll.ood(regression, probs)


@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
def test_noise_has_the_moments_of_its_channels(kind):
    x = torch.tensor([0.5, -2.0]).view(1, 2, 1, 1) + torch.tensor([0.1, 3.0]).view(
        1, 2, 1, 1
    ) * torch.randn(50, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    noise = ll.noise_like(x, kind=kind, examples=500, seed=1)
    assert noise.shape == (500, 2, 9, 9)
    torch.testing.assert_close(noise.mean((0, 2, 3)), x.mean((0, 2, 3)), atol=0.05, rtol=0.05)
    torch.testing.assert_close(noise.std((0, 2, 3)), x.std((0, 2, 3)), atol=0, rtol=0.03)
    kurtosis = ((noise - noise.mean((0, 2, 3), keepdim=True)) ** 4).mean((0, 2, 3)) / noise.var(
        (0, 2, 3)
    ) ** 2
    expected = {"gaussian": 3.0, "uniform": 1.8}[kind]
    np.testing.assert_allclose(kurtosis, expected, rtol=0.05)
    assert torch.equal(noise[:3], ll.noise_like(x, kind=kind, examples=3, seed=1))
    assert not torch.equal(noise[:3], ll.noise_like(x, kind=kind, examples=3, seed=2))


def test_noise_that_cannot_be_made():
    with pytest.raises(ll.ConfigError, match="expected one of gaussian, uniform, got 'pink'"):
        ll.noise_like(torch.zeros(2, 2), kind="pink")
    with pytest.raises(ll.DataError, match=r"floating-point inputs .* torch.int64"):
        ll.noise_like(torch.zeros(2, 2).long())
