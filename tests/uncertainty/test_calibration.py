"""The fitted temperature against a grid search, and scaled probabilities against closed forms."""

import math

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.evaluate.slicing import slice_examples
from lowland.records import Predictive
from tests.evaluate.test_predict import dense, scattered, small
from tests.models import TiedLM, tokens
from tests.scoring.test_metric_sums import random_predictions


def prediction(probs, labels):
    return Predictive("classification", 1, probs=probs, targets=labels)


def nll_at(temperature, pred, task=None):
    return ll.temper(pred, temperature, task=task).metrics()["nll"]


def on_a_grid(pred, task=None):
    grid = torch.logspace(-1.2, 1.2, 1201, base=10, dtype=torch.float64)
    losses = []
    p = pred.probs.double().clamp_min(1e-38)
    for t in grid:
        if p.shape == pred.targets.shape:
            z = (p.log() - (1 - p).log()) / t
            losses.append(nn.functional.binary_cross_entropy_with_logits(z, pred.targets.double()))
        else:
            losses.append(nn.functional.cross_entropy(p.log() / t, pred.targets.long()))
    return float(grid[int(torch.stack(losses).argmin())])


@pytest.mark.parametrize("truth", [0.4, 1.0, 2.5])
def test_temperature_against_a_grid(truth):
    logits = 2 * torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1))[
        :, 0
    ]
    pred = prediction((logits * truth).softmax(1), labels)  # overconfident by `truth`
    t = ll.fit_temperature(pred)
    assert t == pytest.approx(on_a_grid(pred), rel=5e-3)
    assert t == pytest.approx(truth, rel=0.1)
    assert nll_at(t, pred) <= min(nll_at(t * f, pred) for f in (0.99, 1.01, 1.0)) + 1e-12
    # the broken twin: the temperature of logits is not that of their negatives
    assert nll_at(1 / t, pred) >= nll_at(t, pred)


def test_scaling_by_one_and_there_and_back_is_the_identity():
    probs, labels = random_predictions()
    pred = prediction(probs, labels)
    same = ll.temper(pred, 1.0)
    torch.testing.assert_close(same.probs, probs)
    twice = ll.temper(ll.temper(pred, 2.0), 0.5)
    torch.testing.assert_close(twice.probs, probs, atol=1e-5, rtol=1e-4)
    assert torch.equal(ll.temper(pred, 3.0).probs.argmax(1), probs.argmax(1))


def test_scaled_predictions_have_new_metrics():
    _, surface = small()
    pred = ll.predict(surface, scattered(surface.layout, 4, 2.0))
    one = ll.temper(pred, 1.0)
    assert one.metrics() == pytest.approx(pred.metrics(), abs=1e-6)
    torch.testing.assert_close(one.target_log_prob, pred.target_log_prob, atol=1e-5, rtol=1e-5)
    soft = ll.temper(pred, 5.0)
    by_hand = (pred.probs.double().log() / 5).softmax(1)
    torch.testing.assert_close(soft.probs.double(), by_hand, atol=1e-6, rtol=0)
    y = pred.targets
    assert soft.metrics()["nll"] == pytest.approx(
        -by_hand[torch.arange(len(y)), y].log().mean().item(), abs=1e-6
    )
    assert soft.metrics()["ece"] == pytest.approx(ll.reliability(soft.probs, y).ece, abs=1e-6)
    assert soft.entropy is soft.mutual_information is soft.nll_by_samples is None


def overconfident(probs, sharp, seed=0):
    """Labels sampled from softer probabilities than the predicted ones."""
    g = torch.Generator().manual_seed(seed)
    soft = (probs.double().log() / sharp).softmax(1).movedim(1, -1)
    labels = torch.multinomial(soft.reshape(-1, soft.shape[-1]), 1, generator=g)
    return labels.reshape(soft.shape[:-1])


def test_binary():
    probs, _ = random_predictions(n=2000, classes=2)
    pred = prediction(probs, overconfident(probs, 2.0))
    assert ll.fit_temperature(pred) == pytest.approx(on_a_grid(pred), rel=5e-3)
    assert ll.fit_temperature(pred) == pytest.approx(2.0, rel=0.15)


@pytest.mark.parametrize("task", [None, ll.Classification("multilabel")])
def test_multilabel(task):
    yes = random_predictions(n=6000, classes=2)[0]
    y = overconfident(yes, 2.0).view(2000, 3).float()
    pred = prediction(yes[:, 1].view(2000, 3), y)
    t = ll.fit_temperature(pred, task=task)
    assert t == pytest.approx(on_a_grid(pred), rel=5e-3)
    assert t == pytest.approx(2.0, rel=0.15)
    tempered = ll.temper(pred, t, task=task)
    odds = (pred.probs.double() / (1 - pred.probs.double())) ** (1 / t)
    torch.testing.assert_close(tempered.probs.double(), odds / (1 + odds), atol=1e-5, rtol=0)
    p = tempered.probs.double()
    nll = -(y * p.log() + (1 - y) * (1 - p).log()).sum(1).mean().item()
    assert tempered.metrics()["nll"] == pytest.approx(nll, abs=1e-5)
    assert nll < nll_at(1.0, pred, task)


def test_dense():
    surface = ll.LossSurface(nn.Conv2d(2, 4, 3, padding=1), ll.Classification(), dense())
    probs = ll.predict(surface, scattered(surface.layout, 2, 1.0)).probs
    labels = overconfident(probs, 2.0)
    labels[0] = -100
    pred = prediction(probs, labels)
    t = ll.fit_temperature(pred)
    flat = prediction(probs.movedim(1, -1)[labels != -100], labels[labels != -100])
    assert t == pytest.approx(on_a_grid(flat), rel=5e-3)
    assert ll.temper(pred, t).probs.shape == probs.shape
    assert nll_at(t, pred) == pytest.approx(nll_at(t, flat), abs=1e-6)


# -- probabilities that float32 does not hold ------------------------------------------------------


def saturated(margin, right=9, wrong=1, samples=2, **options):
    """Networks with a margin of so many nats, and right nine times in ten."""
    net = nn.Linear(1, 2, bias=False)
    labels = torch.tensor([0] * right + [1] * wrong)
    data = [(torch.ones(len(labels), 1), labels)]
    surface = ll.LossSurface(net, ll.Classification(), data)
    return ll.predict(surface, torch.tensor([[margin, 0.0]] * samples), **options)


@pytest.mark.parametrize("margin", [60.0, 100.0, 400.0, 3000.0])
def test_saturated_networks_are_scaled_by_stored_log_probs(margin, tmp_path):
    """exp(-400) is 0 in float32, whose smallest number has the logarithm -103."""
    pred = saturated(margin)
    assert pred.metrics()["nll"] == pytest.approx(margin / 10)
    t = ll.fit_temperature(pred)
    assert t == pytest.approx(margin / math.log(9), rel=1e-6)
    best = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    tempered = ll.temper(pred, t)
    assert tempered.metrics()["nll"] == pytest.approx(best, abs=1e-6)
    torch.testing.assert_close(tempered.probs[0], torch.tensor([0.9, 0.1]))
    half = ll.temper(ll.temper(pred, 0.5), 2.0)  # there and back
    assert half.metrics()["nll"] == pytest.approx(margin / 10)
    again = type(pred).load(pred.save(tmp_path / "pred.npz"))
    assert ll.fit_temperature(again) == t
    assert ll.fit_temperature(ll.pool([pred, pred])) == pytest.approx(t, rel=1e-6)
    assert ll.fit_temperature(slice_examples(pred, 5, 10)) == pytest.approx(
        margin / math.log(4), rel=1e-6
    )


def test_a_temperature_of_one_changes_nothing():
    for pred in (saturated(200.0), saturated(5.0)):
        assert ll.temper(pred, 1.0).metrics() == pred.metrics()
        assert torch.equal(ll.temper(pred, 1.0).target_log_prob, pred.target_log_prob)
        assert ll.temper(pred, 1 + 1e-12).metrics()["nll"] == pytest.approx(pred.metrics()["nll"])


def test_log_probs_are_stored_where_they_are_needed():
    assert saturated(5.0).log_probs is None
    pred = saturated(100.0)
    torch.testing.assert_close(pred.log_probs[0], torch.tensor([0.0, -100.0]))
    assert saturated(100.0, keep="target").log_probs is None
    assert ll.temper(pred, 100.0).log_probs is None
    # two batches: one with a saturated example, one without
    net = nn.Linear(1, 2, bias=False)
    y = torch.tensor([0])
    data = [(torch.full((1, 1), x), y) for x in (0.01, 1.0)]
    surface = ll.LossSurface(net, ll.Classification(), data)
    weights = torch.tensor([[300.0, 0.0], [200.0, 0.0]])
    mean = torch.log_softmax(torch.tensor([0.01, 1.0])[:, None, None] * weights.double(), 2)
    expected = mean.logsumexp(1) - math.log(2)
    for plan in ({"strategy": "points"}, {"strategy": "vmap", "chunk": 2}):
        pred = ll.predict(surface, weights, **plan)
        torch.testing.assert_close(pred.log_probs.double(), expected, rtol=1e-6, atol=1e-6)


def test_saturated_images_and_tokens():
    surface = ll.LossSurface(nn.Conv2d(2, 4, 3, padding=1), ll.Classification(), dense())
    weights = scattered(surface.layout, 2, 60.0)
    pred = ll.predict(surface, weights)
    assert pred.log_probs.shape == pred.probs.shape
    log_probs = []
    for w in weights:
        z = [surface.forward(surface.layout.materialise(w), {}, b.args, {}) for b in surface.data]
        log_probs.append(torch.cat(z).double().log_softmax(1).detach())
    log_probs = (torch.stack(log_probs).logsumexp(0) - math.log(2)).movedim(1, -1).reshape(-1, 4)
    y = pred.targets.reshape(-1)
    expected = nn.functional.cross_entropy(log_probs[y != -100] / 30, y[y != -100])
    assert ll.temper(pred, 30.0).metrics()["nll"] == pytest.approx(float(expected), rel=1e-6)

    ragged = ll.LossSurface(
        nn.Conv2d(2, 4, 3, padding=1), ll.Classification(), dense(((4, 5), (4, 6), (5, 4)))
    )
    pred = ll.predict(ragged, weights)
    assert pred.log_probs.shape == pred.probs.shape
    assert ll.temper(pred, 30.0).metrics()["nll"] > 0

    torch.manual_seed(0)
    surface = ll.LossSurface(TiedLM(), ll.LanguageModeling(), tokens())
    w = 40 * torch.randn(surface.layout.size)
    pred = ll.predict(surface, w)
    assert pred.log_probs.shape == pred.probs.shape
    assert ll.temper(pred, 1.0).metrics() == pred.metrics()
    outputs = [
        surface.forward(surface.layout.materialise(w), {}, b.args, b.kwargs) for b in surface.data
    ]
    log_probs = torch.cat([r[:, :-1].reshape(-1, 11) for r in outputs]).double().detach()
    mask = pred.targets != -100
    expected = nn.functional.cross_entropy(log_probs[mask] / 7, pred.targets[mask])
    assert ll.temper(pred, 7.0).metrics()["nll"] == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("margin", [3.0, 12.0, 25.0, 400.0])
def test_saturated_independent_labels(margin):
    """From a logit of 17 on, 1 - p is 0 in float32."""
    net = nn.Linear(1, 3, bias=False)
    y = torch.ones(10, 3)
    y[0] = 0.0
    surface = ll.LossSurface(net, ll.Classification(), [(torch.ones(10, 1), y)])
    pred = ll.predict(surface, torch.full((2, 3), margin))
    assert pred.metrics()["nll"] == pytest.approx(
        3 * (margin / 10 + math.log1p(math.exp(-margin))), rel=1e-6
    )
    assert ll.temper(pred, 1.0).metrics() == pred.metrics()
    t = ll.fit_temperature(pred)
    assert t == pytest.approx(margin / math.log(9), rel=1e-6)
    best = 3 * (-0.9 * math.log(0.9) - 0.1 * math.log(0.1))
    assert ll.temper(pred, t).metrics()["nll"] == pytest.approx(best, rel=1e-6)
    torch.testing.assert_close(ll.temper(pred, t).probs, torch.full((10, 3), 0.9))
    assert ll.fit_temperature(ll.pool([pred, pred])) == pytest.approx(t, rel=1e-6)


def test_a_temperature_at_a_bound_warns():
    probs = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]])
    wrong = torch.tensor([1, 1, 1])  # wrong more often than right
    with pytest.warns(UserWarning, match=r"still falls at T = 1e\+06"):
        assert ll.fit_temperature(prediction(probs, wrong)) == pytest.approx(1e6)
    ties = torch.tensor([[0.4, 0.4, 0.2], [0.8, 0.1, 0.1]])
    with pytest.warns(UserWarning, match="still falls at T = 1e-06"):
        assert ll.fit_temperature(prediction(ties, torch.tensor([1, 0]))) == pytest.approx(1e-6)


def test_classes_with_logits_of_minus_infinity():
    """Logits of -inf: the probability is 0, and so is what 0 log 0 adds."""

    class Masked(nn.Linear):
        def forward(self, x):
            return torch.cat([super().forward(x), torch.full((len(x), 1), -math.inf)], 1)

    data = [(torch.ones(10, 1), torch.tensor([0] * 9 + [1]))]
    surface = ll.LossSurface(Masked(1, 2, bias=False), ll.Classification(), data)
    pred = ll.predict(surface, torch.tensor([50.0, 0.0]))
    t = ll.fit_temperature(pred)
    assert t == pytest.approx(50 / math.log(9), rel=1e-6)
    torch.testing.assert_close(ll.temper(pred, t).probs[0], torch.tensor([0.9, 0.1, 0.0]))


def test_probabilities_of_zero_without_log_probs_warn():
    probs = torch.tensor([[1.0, 0.0]] * 10)
    labels = torch.tensor([0] * 9 + [1])
    with pytest.warns(UserWarning, match="1 of 10 labels have a probability of 0"):
        ll.fit_temperature(prediction(probs, labels))


def test_predictions_that_cannot_be_scaled():
    probs, labels = random_predictions()
    with pytest.raises(ll.DataError, match="targets"):
        ll.fit_temperature(prediction(probs, None))
    with pytest.raises(ll.DataError, match="probabilities"):
        ll.temper(prediction(None, labels), 2.0)
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ll.ConfigError, match="above 0"):
            ll.temper(prediction(probs, labels), wrong)


def test_the_temperature_is_one_where_all_examples_are_right():
    probs = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    with pytest.warns(UserWarning, match="all 2 validation examples are right"):
        assert ll.fit_temperature(prediction(probs, torch.tensor([0, 1]))) == 1
    # one wrong example is enough
    probs = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]])
    t = ll.fit_temperature(prediction(probs, torch.tensor([0, 1, 1])))
    assert math.isfinite(t)
    assert t > 1


def test_scaling_computes_in_float64():
    probs = torch.tensor([[1e-6, 1 - 1e-6], [0.5, 0.5]])
    pred = Predictive("classification", 1, probs=probs, targets=torch.tensor([0, 0]))
    nll = ll.temper(pred, 0.1).metrics()["nll"]
    expected = -torch.log_softmax(probs.double().log() / 0.1, 1)[:, 0].mean()
    assert nll == pytest.approx(float(expected), rel=1e-6)
