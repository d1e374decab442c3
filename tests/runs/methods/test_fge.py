"""Fast geometric ensembling."""

import pytest
import torch


def test_its_posterior_is_the_ensemble_of_the_cycles_iterates(finished, posterior_of):
    iterates = finished.load(finished.run.cycles(0)).iterates
    post = posterior_of("fge")
    assert post.support == len(iterates) >= 1
    for i in range(len(iterates)):
        assert torch.equal(post.draw(i), iterates[i].weights)


def test_it_pays_for_the_trajectory_up_to_its_branch(finished):
    run = finished.run
    trajectory, cycles = finished.method("fge").parts(run)
    assert trajectory.share == pytest.approx(run.budget.before_averaging())
    assert trajectory.share >= run.config.average.start
    assert cycles.share == 1
