"""Snapshot ensembles."""

import pytest
import torch

from lowland.errors import ConfigError
from lowland.runs.run import Run


def test_members_are_the_ends_of_the_cycles_of_the_whole_budget(finished, posterior_of):
    run = finished.run
    iterates = finished.load(run.snapshot(0)).iterates
    total = run.budget.total
    assert iterates.steps == [round(total * i / 5) for i in range(1, 6)]
    post = posterior_of("snapshot")
    assert post.support == 5
    for i in range(5):
        assert torch.equal(post.draw(i), iterates[i].weights)


def test_it_pays_for_one_training(finished):
    (part,) = finished.method("snapshot").parts(finished.run)
    assert part.share == 1
    assert part.artifact.passes({}) == finished.run.config.train.epochs
    assert finished.method("snapshot").label(finished.run) == "Snapshot ensemble of 5"


def test_more_cycles_than_the_budget_has_room_for_are_refused(finished):
    snapshot = finished.run.config.snapshot.model_copy(update={"cycles": 13})
    run = Run(finished.run.config.model_copy(update={"snapshot": snapshot}), finished.run.setup)
    with pytest.raises(
        ConfigError, match=r"snapshot\.cycles: expected at most 12 cycles .* 24 steps .* got 13"
    ):
        finished.method("snapshot").check(run)
