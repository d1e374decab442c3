"""What NUTS learns in warm-up: its windows, step sizes by a search, and metrics against numpy."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from lowland.samplers.adaptation import SEARCH, begin, force, learn, search, velocity, window_ends


def arrays(z, *, scale=1.0, dense=False):
    state = {name: value.numpy() for name, value in begin(z, scale=scale, dense=dense).items()}
    return state | {"z": z.numpy()}


@pytest.mark.parametrize("warmup", [0, 19, 20, 100, 149, 150, 300, 777, 5000])
def test_windows_double_and_leave_room_at_the_end(warmup):
    ends = window_ends(warmup)
    assert ends == sorted(set(ends))
    assert bool(ends) is (warmup >= 20)
    if warmup >= 150:
        lengths = np.diff([75, *ends])
        assert ends[-1] == warmup - 50
        assert all(b == 2 * a for a, b in pairwise(lengths[:-1]))
        assert len(lengths) == 1 or lengths[-1] >= 2 * lengths[-2]


@pytest.mark.parametrize("dense", [False, True])
def test_velocities_and_forces_are_products_with_the_factor(dense):
    g = np.random.default_rng(0)
    u = g.normal(size=(3, 4))
    factor = np.tril(g.normal(size=(3, 4, 4))) if dense else g.uniform(1, 2, size=(3, 4))
    for i in range(3):
        matrix = factor[i] if dense else np.diag(factor[i])
        np.testing.assert_allclose(velocity(factor, u)[i], matrix @ u[i])
        np.testing.assert_allclose(force(factor, u)[i], matrix.T @ u[i])


@pytest.mark.parametrize("right", [0.01, 3.0])
def test_a_search_stops_within_a_factor_of_two(right):
    """A step changes the log density by SEARCH at the right size, by more below it."""
    state = arrays(torch.zeros(1, 2).double())
    for _ in range(60):
        if state["search"][0] == 0:
            break
        search(state, np.array([0]), SEARCH * state["step"] / right)
    assert state["search"][0] == 0
    assert right / 2 <= state["step"][0] <= 2 * right
    assert state["log_step"][0] == pytest.approx(math.log(state["step"][0]))


def test_a_step_that_is_never_right_ends_at_a_limit():
    state = arrays(torch.zeros(1, 2).double())
    for _ in range(100):
        search(state, np.array([0]), np.array([math.nan]))  # as from a cliff
    assert (state["search"][0], state["step"][0]) == (0, 1e-10)


def test_step_sizes_follow_what_is_accepted():
    steps = []
    for accepted in (0.2, 0.8, 1.0):
        state = arrays(torch.zeros(1, 1).double())
        search(state, np.array([0]), np.array([SEARCH * 0.9]))
        search(state, np.array([0]), np.array([SEARCH * 1.1]))
        for _ in range(30):
            learn(state, np.array([0]), np.array([accepted]), target=0.8, ends=np.array([]),
                  scale=1.0)  # fmt: skip
        steps.append(float(np.exp(state["log_step"][0])))
    assert steps[0] < steps[1] < steps[2]


@pytest.mark.parametrize("dense", [False, True])
def test_a_metric_is_the_covariance_of_its_window(dense):
    g = torch.Generator().manual_seed(0)
    root = torch.tensor([[2.0, 0.0], [0.6, 0.1]]).double()
    iterates = torch.randn(5000, 2, generator=g).double() @ root.T
    state = arrays(torch.zeros(1, 2).double(), dense=dense)
    ends = np.array([5000])
    for z in iterates.numpy():
        state["z"][0] = z
        learn(state, np.array([0]), np.array([0.8]), target=0.8, ends=ends, scale=1.0)
    factor = state["factor"][0]
    covariance = factor @ factor.T if dense else np.diag(factor**2)
    expected = np.cov(iterates[75:].numpy().T)  # the first transitions look for the typical set
    np.testing.assert_allclose(
        covariance, expected if dense else np.diag(np.diag(expected)), atol=0.01
    )
    assert state["search"][0] == 1  # another metric: another step size
