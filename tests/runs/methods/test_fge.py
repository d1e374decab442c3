"""Fast geometric ensembling."""

import pytest
import torch

from lowland.artifacts.order import ordered
from tests.runs.test_segments import run_of


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


def test_cycles_of_given_learning_rates_need_no_choice():
    average = {"start": 0.5}
    for lrs, chooses in ({"high": 0.1}, False), ({"high": 0.1, "low": 0.01}, False), ({}, True):
        run = run_of(methods=["fge"], average=average, fge={"cycle": 1.0, **lrs})
        names = {each.name for each in ordered([run.row(run.methods[0])])}
        assert ("tuning/learning-rate" in names) == chooses
        assert any("trial" in name for name in names) == chooses


def test_members_follow_the_lowest_learning_rate(finished):
    trained = finished.load(finished.run.cycles(0))
    series = trained.cycles
    lrs = dict(zip(series.lr_step.tolist(), series.lr.tolist(), strict=True))
    assert {lrs[step] for step in trained.iterates.steps} == {min(lrs.values())}
