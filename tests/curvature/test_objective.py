import math

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.curvature.objective import Objective
from lowland.errors import DataError, LayoutError, NonFiniteError
from tests.curvature.nets import blobs, quadratic, relu_net, surface_of
from tests.landscape.surfaces import overflowing

D = torch.tensor([0.1, 0.0, -0.2, 0.3, 0.0], dtype=torch.float64)


def test_values_and_gradients_are_those_of_the_surface():
    surface, w = quadratic(), torch.ones(5).double()
    objective = Objective(surface, w)
    assert objective.loss == pytest.approx(float(surface(w)))
    value, gradient = objective.value_and_grad(D)
    assert value == objective.value(D) == pytest.approx(float(surface(w + D)))
    torch.testing.assert_close(gradient, surface.value_and_grad(w + D)[1])
    norm = float(surface.value_and_grad(w)[1].norm())
    assert objective.gradient_norm == pytest.approx(norm)


def test_evaluations_are_counted_and_reported():
    counts = []
    objective = Objective(quadratic(), D, report=lambda done, total: counts.append(done))
    objective.value(D)
    objective.rows([D, 2 * D], 2)
    assert objective.evaluations == 4
    assert counts == [1, 2, 3, 4]


def test_rows_are_the_losses_and_errors_of_the_engine():
    surface, point = surface_of(relu_net())
    test = [(x[:5], y[:5]) for x, y in blobs()]
    d = 0.1 * torch.ones_like(point.weights)
    rows = Objective(surface, point).rows([0 * d, d], 2, test_data=surface.replayable(test))
    expected = surface.evaluate(torch.stack([point.weights, point.weights + d]))
    on_test = surface.evaluate(point.weights + d, test)
    assert [row["loss"] for row in rows] == pytest.approx(expected.loss.tolist())
    assert [row["error"] for row in rows] == pytest.approx(expected.error.tolist())
    assert rows[1]["test_loss"] == pytest.approx(float(on_test.loss))


@pytest.mark.parametrize("policy", ["frozen", "refresh"])
def test_the_batchnorm_policy_is_that_of_the_options(policy):
    surface, point = surface_of(relu_net(norm=nn.BatchNorm1d))
    options = ll.EvalOptions(batchnorm=policy)
    objective = Objective(surface, surface.estimated(point), options=options)
    d = 0.3 * torch.ones_like(point.weights)
    if policy == "refresh":  # statistics that were estimated for w are not those of w + d
        expected = surface(point.weights + d)
    else:
        buffers = surface.estimated(point).buffers
        expected = surface(ll.Point(point.weights + d, buffers), batchnorm="frozen")
    assert objective.value(d) == pytest.approx(float(expected))
    assert objective.rows([d], 1)[0]["loss"] == pytest.approx(float(expected))
    assert objective.value_and_grad(d)[0] == pytest.approx(float(expected))
    assert objective.batchnorm == policy
    assert Objective(*surface_of(relu_net())).batchnorm == "none"


def test_losses_that_are_not_finite_count_as_infinite():
    surface, plane = overflowing()
    w = plane.anchors[0]
    objective = Objective(surface, w)
    assert objective.value(200 * plane.basis[0]) == math.inf
    assert objective.nonfinite == 1
    with pytest.raises(NonFiniteError, match="loss at these weights"):
        Objective(surface, w + 200 * plane.basis[0])


def test_rescaled_networks_are_the_same_function():
    surface, point = surface_of(relu_net())
    objective = Objective(surface, point)
    half, twice = objective.rescaled()
    assert half.loss == twice.loss == objective.loss
    assert not torch.equal(half.weights, objective.weights)
    assert objective.evaluations == 3
    assert not list(Objective(*surface_of(relu_net(between=nn.Tanh))).rescaled())


def test_data_and_weights_that_do_not_suit_raise():
    surface, _ = surface_of(relu_net())
    with pytest.raises(LayoutError, match="expected"):
        Objective(surface, torch.zeros(3))
    with pytest.raises(DataError, match="empty"):
        Objective(*surface_of(relu_net(), data=[(torch.zeros(0, 3), torch.zeros(0).long())]))
    one = [(torch.zeros(1, 3), torch.zeros(1).long())]
    with pytest.raises(DataError, match="at least two examples"):
        Objective(*surface_of(relu_net(norm=nn.BatchNorm1d), data=one))
