import math

import pytest
import torch

from lowland.curvature.ascent import ascend, project, random_start
from lowland.curvature.objective import Objective
from tests.curvature.nets import EIGENVALUES, MINIMUM, NOISE, quadratic


def objective(at=MINIMUM):
    return Objective(quadratic(), at)


def start(norm, number=0, radius=0.1):
    return random_start(MINIMUM, radius, norm, seed=0, number=number)


def test_the_maximum_on_a_sphere_is_that_of_the_largest_eigenvalue():
    best = ascend(objective(), 0.1, scale=1.0, norm=2, steps=50, start=start(2))
    assert best - NOISE == pytest.approx(4.0 * 0.1**2 / 2, rel=1e-6)


def test_the_maximum_in_a_box_is_at_a_corner():
    scale = torch.arange(1.0, 6.0).double()
    best = ascend(objective(), 0.1, scale=scale, norm=math.inf, steps=5, start=start(math.inf))
    assert best - NOISE == pytest.approx(float((EIGENVALUES * (0.1 * scale) ** 2).sum()) / 2)


def test_one_step_from_w_goes_along_the_gradient():
    w = MINIMUM + 1.0
    near = objective(w)
    d = 0.1 * near.gradient / near.gradient.norm()
    assert ascend(near, 0.1, scale=1.0, norm=2, steps=1) == near.value(d)


def test_a_step_that_does_not_ascend_is_halved():
    # from w the loss falls to the minimum and rises behind it: a long way is worse than none
    w = MINIMUM + torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]).double()
    near = objective(w)
    best = ascend(near, 0.5, scale=1.0, norm=2, steps=30, start=start(2, number=1, radius=0.5))
    assert best - NOISE == pytest.approx(4.0 * 1.5**2 / 2, rel=1e-3)
    assert ascend(near, 0.5, scale=1.0, norm=2, steps=30) <= best + 1e-9


def test_the_best_is_no_less_than_the_loss_at_w():
    near = objective(MINIMUM + 1.0)
    towards = -0.1 * torch.ones(5).double()
    assert ascend(near, 1e-9, scale=1.0, norm=math.inf, steps=1, start=0 * towards) >= near.loss
    assert ascend(near, 0.1, scale=0.0, norm=2, steps=3, start=towards) == near.loss


def test_points_are_projected_on_the_ball():
    u = torch.tensor([3.0, -4.0]).double()
    assert float(project(u, 2.0, 2).norm()) == pytest.approx(2.0)
    assert torch.equal(project(u, 10.0, 2), u)
    assert torch.equal(project(torch.zeros(2), 1.0, 2), torch.zeros(2))
    assert project(u, 3.5, math.inf).tolist() == [3.0, -3.5]


def test_starts_lie_in_the_ball_and_depend_on_their_number():
    like = torch.zeros(1000)
    box, sphere = (random_start(like, 2.0, p, seed=0, number=1) for p in (math.inf, 2))
    assert 1.9 < float(box.abs().max()) < 2.0
    assert float(box.var()) == pytest.approx(4 / 3, rel=0.1)  # uniform
    assert float(sphere.norm()) == pytest.approx(2.0)
    assert not torch.equal(sphere, random_start(like, 2.0, 2, seed=0, number=2))
