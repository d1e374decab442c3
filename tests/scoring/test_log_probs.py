"""Logarithms of probabilities, against float64."""

import math

import pytest
import torch

import lowland as ll
from lowland.records import Predictive
from lowland.scoring.log_probs import LOG_ZERO, log_probs_of, needs_log_probs, pool_log_probs

TASK = ll.Classification("multiclass")


def prediction(logits, *, stored):
    """A prediction whose probabilities are 0 in float32 where logits are far apart."""
    log_probs = logits.double().log_softmax(1)
    return Predictive(
        "classification",
        1,
        probs=log_probs.exp().float(),
        log_probs=log_probs.float() if stored else None,
    )


def test_stored_logarithms_are_used_and_others_are_taken_of_the_probabilities():
    logits = torch.tensor([[500.0, 0.0], [1.0, 0.0]])
    exact = logits.double().log_softmax(1)
    stored = log_probs_of(prediction(logits, stored=True), TASK)
    torch.testing.assert_close(stored, exact, rtol=1e-6, atol=1e-12)
    computed = log_probs_of(prediction(logits, stored=False), TASK)
    torch.testing.assert_close(computed[1], exact[1], rtol=1e-6, atol=1e-6)
    assert computed[0, 1] == pytest.approx(math.log(2.0**-149))  # the smallest float32, not -inf


def test_a_stored_logarithm_of_zero_is_finite():
    log_probs = torch.tensor([[0.0, -math.inf]])
    pred = Predictive("classification", 1, probs=log_probs.exp(), log_probs=log_probs)
    assert log_probs_of(pred, TASK).tolist() == [[0.0, LOG_ZERO]]


def test_independent_labels_have_two_logarithms_each():
    probs = torch.tensor([[0.25, 0.5, 1.0]])
    result = log_probs_of(
        Predictive("classification", 1, probs=probs), ll.Classification("multilabel")
    )
    expected = torch.stack([1 - probs, probs], 1).double().log()
    torch.testing.assert_close(result[..., :2], expected[..., :2])
    assert result[0, 0, 2] < -100  # of 1 - 1
    integers = Predictive("classification", 1, probs=probs, targets=torch.ones(1, 3))
    assert log_probs_of(integers, ll.Classification()).shape == (1, 2, 3)  # the targets show it


@pytest.mark.parametrize(
    ("task", "least", "expected"),
    [
        (TASK, 1e-31, True),
        (TASK, 1e-29, False),
        (ll.LanguageModeling(), 1e-31, True),
        (ll.Classification("multilabel"), 0.5, True),
        (ll.Regression(noise_variance=1.0), 1e-31, False),
    ],
)
def test_where_logarithms_are_held(task, least, expected):
    assert needs_log_probs(task, torch.tensor([[least, 0.5]])) == expected


def test_tasks_of_a_users_own_compute_theirs():
    class Own(ll.Classification):
        pass

    assert not needs_log_probs(Own("multiclass"), torch.zeros(1, 2))


def test_the_pool_is_the_logarithm_of_the_mean_probability():
    logits = torch.tensor([[[300.0, 0.0]], [[310.0, 0.0]]])
    preds = [prediction(part, stored=True) for part in logits]
    result = pool_log_probs(preds, TASK)
    # (e^-300 + e^-310) / 2, in closed form
    assert float(result[0, 1]) == pytest.approx(-300 + math.log1p(math.exp(-10)) - math.log(2))
    assert pool_log_probs([prediction(part, stored=False) for part in logits], TASK) is None
