"""A weight vector with its buffers: what is evaluated is what it holds."""

import copy
import pickle

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.core.point import EstimatedPoint


def test_a_point_is_a_pair_that_unpacks():
    w = torch.ones(3)
    point = ll.Point(w, {"mean": torch.zeros(1)})
    weights, buffers = point
    assert weights is w
    assert buffers is point.buffers
    assert ll.Point(w).buffers is None


@pytest.mark.parametrize("kind", [ll.Point, EstimatedPoint])
def test_copies_are_of_the_same_kind(kind):
    point = kind(torch.ones(2), {"mean": torch.zeros(1)})
    for twin in (point._replace(weights=2 * point.weights), copy.copy(point), copy.deepcopy(point),
                 pickle.loads(pickle.dumps(point))):  # fmt: skip
        assert type(twin) is kind
        assert twin.estimated is (kind is EstimatedPoint)


def test_statistics_of_an_estimated_point_are_taken_as_they_are():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    x, y = torch.randn(20, 2), torch.arange(20) % 2
    surface = ll.LossSurface(net, ll.Classification(), [(x, y)])
    w = surface.layout.flatten(net)
    own = {"1.running_mean": torch.full((3,), 7.0), "1.running_var": torch.full((3,), 4.0)}
    net.load_state_dict(own, strict=False)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(net.eval()(x), y)
    torch.testing.assert_close(surface(EstimatedPoint(w, own)), expected.double())
    # those of any other point are estimated anew
    assert float(surface(ll.Point(w, own))) == pytest.approx(float(surface(w)))
    assert float(surface(w)) != pytest.approx(float(expected), rel=1e-2)
