"""The global random states of torch, NumPy and Python."""

import random

import numpy as np
import torch

from lowland.train.rng import fork_global_rng, rng_state, set_rng_state


def draw():
    return float(torch.rand(())), float(np.random.rand()), random.random()  # noqa: NPY002


def test_a_state_is_restored():
    state = rng_state()
    first = draw()
    assert draw() != first
    set_rng_state(state)
    assert draw() == first


def test_a_fork_is_seeded_and_leaves_the_callers_state():
    state = rng_state()
    expected = draw()
    set_rng_state(state)
    with fork_global_rng(3):
        first = draw()
    with fork_global_rng(3):
        assert draw() == first
    assert draw() == expected
