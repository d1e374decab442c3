"""Points of a box by numbers: against loops over all of them, and integrals in closed form."""

import itertools
import math

import numpy as np
import pytest
import torch

from lowland.samplers.lattice import Lattice, difference, missing


def box(k=2, side=4, level=0):
    low, high = -torch.arange(1.0, k + 1).double(), 2 * torch.ones(k).double()
    return Lattice(low, high, side, level)


@pytest.mark.parametrize(("k", "level"), [(1, 0), (2, 0), (2, 2), (3, 1)])
def test_numbers_are_points_of_the_grid_in_order(k, level):
    lattice = box(k, level=level)
    n = 4 * 2**level + 1
    axes = [np.linspace(float(a), 2, n) for a in lattice.low]
    expected = np.array(list(itertools.product(*axes)))
    keys = lattice.all_keys()
    assert len(keys) == n**k
    np.testing.assert_allclose(lattice.points(keys), expected, atol=1e-12)
    edge = ((expected == expected.min(0)) | (expected == expected.max(0))).any(1)
    assert lattice.on_edge(keys).tolist() == edge.tolist()


def test_points_keep_their_place_on_finer_and_larger_lattices():
    coarse = box(level=1)
    keys = torch.tensor([0, 7, 40, 80])
    fine = coarse.at(3).from_coarser(coarse.at(2).from_coarser(keys, coarse), coarse.at(2))
    torch.testing.assert_close(coarse.at(3).points(fine), coarse.points(keys))
    enlarged = coarse.enlarged()
    torch.testing.assert_close(
        enlarged.points(enlarged.from_inner(keys, coarse)), coarse.points(keys)
    )
    torch.testing.assert_close(enlarged.spacing, coarse.spacing)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_neighbours_are_those_within_a_step(k):
    lattice = box(k, side=3)
    every = lattice.all_keys()
    indices = lattice.indices(every)
    for key in every.tolist():
        steps = (indices - indices[key]).abs()
        here = torch.tensor([key])
        assert lattice.neighbourhood(here).tolist() == every[steps.amax(1) <= 1].tolist()
        assert lattice.axis_neighbours(here).tolist() == every[steps.sum(1) == 1].tolist()


def test_weights_are_the_trapezoid_rules():
    lattice = box(side=6)
    keys = lattice.all_keys()
    x, y = (np.unique(axis) for axis in lattice.points(keys).T.numpy())
    values = torch.from_numpy(np.exp(np.add.outer(0.3 * x, np.sin(y)))).flatten()
    expected = np.trapezoid(np.trapezoid(values.reshape(7, 7).numpy(), y), x)
    assert float((lattice.log_weights(keys).exp() * values).sum()) == pytest.approx(expected)


def test_moments_of_a_gaussian():
    lattice = Lattice(torch.full((2,), -8.0).double(), torch.full((2,), 8.0).double(), 64)
    keys = lattice.all_keys()
    mean, sd = torch.tensor([0.5, -1.0]), torch.tensor([1.0, 0.7])
    values = -0.5 * ((lattice.points(keys) - mean) / sd).square().sum(1)
    moments = lattice.moments(keys, values)
    torch.testing.assert_close(moments["mean"], mean.double())
    torch.testing.assert_close(
        moments["covariance"], torch.diag(sd.double() ** 2), atol=1e-9, rtol=0
    )
    assert float(moments["log_evidence"]) == pytest.approx(math.log(2 * math.pi * 0.7))
    # what holds next to no mass may be left out
    left = lattice.holding_mass(keys, values, lattice.rises(keys, values), 1e-6)
    assert len(left) < len(keys) / 2
    assert difference(moments, lattice.moments(left, values[left])) < 1e-4


def test_rises_are_to_known_neighbours_alone():
    lattice = box(k=1, side=4)
    keys = torch.tensor([0, 1, 3, 4])
    values = torch.tensor([0.0, 2.0, 5.0, -math.inf]).double()
    assert lattice.rises(keys, values)[:, 0].tolist() == [2, 2, 0, 0]
    assert missing(torch.arange(5), keys).tolist() == [2]


def test_a_grid_of_one_point_has_not_settled():
    one = {
        "mean": torch.zeros(1).double(),
        "covariance": torch.zeros(1, 1).double(),
        "log_evidence": torch.tensor(0.0).double(),
    }
    assert difference(one, one) == math.inf
    assert not Lattice(torch.zeros(4), torch.ones(4), 10**5).countable
    assert box().countable
