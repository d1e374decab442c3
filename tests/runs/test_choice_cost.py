"""What choices may cost, and how their candidates are limited by it."""

import math
from types import SimpleNamespace

import pytest
import torch

from lowland.runs.average_choice import TailChoice
from lowland.runs.choice_cost import evaluations, samples_within, scales_within, tails_within
from lowland.runs.methods import method_named
from tests.runs.test_segments import run_of

SCALES = [0.1, 0.25, 0.5, 1.0, 2.0]


def setup_of(train=300, validation=100, *, epochs=200, batchnorm=False, bn_rows=50, bn=None):
    def loader(n):
        return SimpleNamespace(num_examples=n)

    config = SimpleNamespace(train=SimpleNamespace(epochs=epochs), bn_rows=bn_rows)
    return SimpleNamespace(
        clean=loader(train),
        validation=loader(validation),
        batchnorm=None if bn is None else loader(bn),
        config=config,
        surface=SimpleNamespace(has_batchnorm=batchnorm),
    )


def test_evaluations_are_a_share_of_training():
    """Steps cost three passes: 200 epochs of 300 examples as much as 1,800 passes over 100."""
    assert evaluations(setup_of(), 0.01) == pytest.approx(18)


@pytest.mark.parametrize(
    ("bn_rows", "bn", "read"), [(50, None, 50), (4096, None, 300), (50, 20, 20)]
)
def test_an_evaluation_with_batchnorm_reads_the_examples_of_its_statistics(bn_rows, bn, read):
    setup = setup_of(batchnorm=True, bn_rows=bn_rows, bn=bn)
    assert evaluations(setup, 0.01) == pytest.approx(1800 / (100 + read))


def test_loaders_of_the_users_own_count_by_their_data_set_or_not_at_all():
    setup = setup_of()
    setup.validation = torch.utils.data.DataLoader(list(range(50)), batch_size=20)
    assert evaluations(setup, 0.01) == pytest.approx(36)
    setup.validation = [1, 2]
    assert evaluations(setup, 0.01) == math.inf
    assert tails_within(math.inf, 2, most=6) == 6
    assert scales_within(math.inf, SCALES, 2, most=10) == (SCALES, 10)


@pytest.mark.parametrize(
    "limit", [0.0, 1.0, 7.9, 8.0, 15.9, 16.0, 24.0, 39.9, 40.0, 55.0, 99.0, 1e9]
)
def test_candidates_are_as_many_as_the_limit_allows(limit):
    """And the fewest where it allows none: two branches at one scale, four draws each."""
    scales, samples = scales_within(limit, SCALES, 2, most=10)
    cost = 2 * len(scales) * samples
    assert cost <= max(limit, 8)
    assert sorted(set(scales)) == scales
    assert set(scales) <= set(SCALES)
    more = 2 * len(scales) * (samples + 1) if len(scales) == 5 else 2 * (len(scales) + 1) * samples
    assert more > limit or (len(scales), samples) == (5, 10)
    tails = tails_within(limit, 2, most=6)
    assert 1 + 2 * (tails + 1) <= max(limit, 5)
    assert samples_within(limit, 4, most=3) in (0, 3)


def test_small_networks_are_compared_whatever_their_steps_cost():
    """Their steps take longer than their multiplications, and choices take seconds at most."""
    setup = setup_of(epochs=1)
    setup.multiplications = 1e6
    assert evaluations(setup, 0.01) == pytest.approx(0.09)
    assert evaluations(setup, 0.01, multiplications=5e8) == pytest.approx(5)
    assert evaluations(setup, 10.0, multiplications=5e8) == pytest.approx(90)


def test_the_candidates_of_a_run_follow_the_cost_of_its_training(monkeypatch):
    swag = method_named("swag")
    short = run_of(methods=["swag"])
    assert short.setup.multiplications == 64 * 8 + 8 * 10
    assert swag.comparison(short) == ([0.5, 1.0], 3)
    assert TailChoice(short, 0).tails == 6
    # as with a large network, of which evaluations cost more than steps do
    monkeypatch.setattr(short.setup, "multiplications", 1e12)
    assert swag.comparison(short) == ([1.0], 3)
    assert len(swag.scales(short)) == 3  # SGD, and both branches
    assert TailChoice(short, 0).tails == 1
    train = {"epochs": 4000, "batch_size": 30, "lr": 0.1}
    long = run_of(methods=["swag"], train=train)
    assert swag.comparison(long) == ([0.5, 1.0], 3)
    assert TailChoice(long, 0).tails == 6
    alone = run_of(0.05, methods=["swag"], train=train)  # nothing but the scale is chosen
    assert swag.comparison(alone) == ([0.5, 1.0], 3)
