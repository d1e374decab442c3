"""A weight vector with its buffers, which evaluations use."""

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
    statistics = {"1.running_mean": torch.full((3,), 7.0), "1.running_var": torch.full((3,), 4.0)}
    net.load_state_dict(statistics, strict=False)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(net.eval()(x), y)
    torch.testing.assert_close(surface(EstimatedPoint(w, statistics)), expected.double())
    # statistics of any other point are estimated
    assert float(surface(ll.Point(w, statistics))) == pytest.approx(float(surface(w)))
    assert float(surface(w)) != pytest.approx(float(expected), rel=1e-2)


NET = nn.Linear(2, 1)
W = torch.tensor([1.0, 2.0, 3.0])
TAKES_WEIGHTS = {
    "Line": lambda w: ll.Line(w, W),
    "Bezier": lambda w: ll.Bezier.between(W, w),
    "Simplex": lambda w: ll.Simplex([W, w]),
    "complex": lambda w: ll.SimplicialComplex.connecting([W, w]),
    "Subspace.random": lambda w: ll.Subspace.random(w, rank=1),
    "PointMass": ll.PointMass,
    "Ensemble": lambda w: ll.Ensemble([W, w]),
    "Gaussian": lambda w: ll.Gaussian(w, W),
    "variance": lambda w: ll.Gaussian(W, w),
}


@pytest.mark.parametrize("take", TAKES_WEIGHTS.values(), ids=TAKES_WEIGHTS)
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (NET, r"expected weights \(P,\), got Linear; give surface.point\(model\)"),
        (NET.state_dict(), r"got OrderedDict; give layout.flatten\(state_dict\)"),
        (W.numpy(), r"got ndarray; give a flat"),
        (W.tolist(), r"got list; give a flat"),
        (W.long(), r"got int64 \(3,\); give a flat"),
        (None, r"got NoneType; give a flat"),
    ],
    ids=["model", "state dict", "numpy", "list", "integers", "None"],
)
def test_values_that_are_no_weights_are_an_error(take, wrong, words):
    with pytest.raises(ll.LayoutError, match=words):
        take(wrong)


def test_a_gaussian_around_a_point_keeps_its_buffers():
    post = ll.Gaussian(ll.Point(W, {"mean": torch.ones(1)}), 0 * W)
    assert torch.equal(post.point(0).weights, W)
    assert post.point(0).buffers == {"mean": torch.ones(1)}


def test_a_mixture_is_of_posteriors():
    with pytest.raises(ll.ConfigError, match=r"expected posteriors, got Tensor for component 1"):
        ll.Mixture([ll.PointMass(W), W])


def test_integer_weights_are_an_error():
    surface = ll.LossSurface(NET, ll.Regression(1.0), [(torch.ones(2, 2), torch.ones(2, 1))])
    for take in (surface, surface.value_and_grad):
        with pytest.raises(
            ll.LayoutError, match=r"expected floating-point numbers, got torch\.int64"
        ):
            take(W.long())
