import math

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.curvature.average import AverageSharpness
from lowland.curvature.keskar import KeskarSharpness
from lowland.curvature.operators import CurvatureOperator
from lowland.curvature.sam import SAMSharpness
from lowland.curvature.sharpness import MEASURES, summary
from lowland.errors import ConfigError, LayoutError, NonFiniteError
from lowland.records import SharpnessResult
from tests.curvature.nets import MINIMUM, quadratic, relu_net, surface_of
from tests.landscape.surfaces import overflowing

KINDS = sorted(MEASURES)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_fills_its_record_and_saves_it(kind, tmp_path):
    surface, point = surface_of(relu_net(norm=nn.BatchNorm1d))
    result = ll.sharpness(surface, point, kind=kind, radius=[0.1, 0.01])
    r, n = result.values.shape
    assert r == 2
    assert n >= 3
    assert result.value.shape == (2,)
    assert result.interval.shape == (2, 2)
    if kind != "average":  # the weights are no minimum
        assert result.value[0] > result.value[1] > 0
    assert (result.interval[:, 0] <= result.value).all()
    assert (result.value <= result.interval[:, 1]).all()
    assert result.loss == pytest.approx(float(surface(point)))
    gradient = surface.value_and_grad(point)[1]
    assert result.gradient_norm == pytest.approx(float(gradient.norm()), rel=1e-4)
    assert (result.batchnorm, result.examples) == ("refresh", 24)
    assert result.invariant is (kind == "adaptive")
    assert result.evaluations > n
    for ending in ("npz", "json"):
        loaded = SharpnessResult.load(result.save(tmp_path / f"r.{ending}"))
        assert float(loaded) == float(result)
        assert loaded.invariant == result.invariant


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_values(kind):
    surface, point = surface_of(relu_net())
    one, same, other = (
        ll.sharpness(surface, point, kind=kind, radius=0.1, seed=seed, invariance=False)
        for seed in (0, 0, 1)
    )
    assert torch.equal(one.values, same.values)
    assert not torch.equal(one.values, other.values)
    assert one.invariant is None


class Stopped(Exception):
    pass


@pytest.mark.parametrize("kind", [*KINDS, "subspace"])
def test_a_stopped_measure_goes_on_from_its_checkpoint(kind, tmp_path):
    surface, point = surface_of(relu_net(norm=nn.BatchNorm1d))
    # with an explicit plan nothing is timed, and equal work gives equal bits
    options = {"radius": [0.1, 0.01], "strategy": "points", "chunk": 1, "threads": 1}
    options["kind"] = KeskarSharpness(subspace=5) if kind == "subspace" else kind
    calls = []
    whole = ll.sharpness(surface, point, **options, progress=lambda *now: calls.append(now))
    path = tmp_path / "sharpness.safetensors"

    def stop(done, total):
        if done > 0.6 * len(calls):
            raise Stopped

    with pytest.raises(Stopped):
        ll.sharpness(surface, point, **options, checkpoint=path, progress=stop)
    counted = []
    result = ll.sharpness(
        surface, point, **options, checkpoint=path, progress=lambda *now: counted.append(now)
    )
    assert len(counted) < 0.75 * len(calls)
    for name in ("values", "rescaled", "value", "interval"):
        assert torch.equal(getattr(result, name), getattr(whole, name))
    assert result.evaluations == whole.evaluations
    with pytest.raises(ConfigError, match="seed: 0 there, 1 now"):
        ll.sharpness(surface, point, **options, seed=1, checkpoint=path)
    other = ll.Point(point.weights + 1, point.buffers)
    with pytest.raises(ConfigError, match="point"):
        ll.sharpness(surface, other, **options, checkpoint=path)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_that_are_not_finite_make_it_infinite_and_are_reported(kind):
    surface, plane = overflowing()
    w = plane.anchors[0] + plane.basis[0]  # its first weight is no 0, which is a bound of adaptive
    result = ll.sharpness(surface, w, kind=kind, radius=1e6, invariance=False)
    assert float(result) == math.inf
    assert result.nonfinite > 0
    calm = ll.sharpness(surface, w, kind=kind, radius=1e-3, invariance=False)
    assert calm.nonfinite == 0
    assert math.isfinite(float(calm))


def test_the_batchnorm_policy_changes_the_value_and_is_recorded():
    net = relu_net(norm=nn.BatchNorm1d)
    surface, _ = surface_of(net)
    point = surface.estimated(net)
    frozen, refresh = (
        ll.sharpness(surface, point, kind="sam", radius=1.0, batchnorm=policy, invariance=False)
        for policy in ("frozen", "refresh")
    )
    assert (frozen.batchnorm, refresh.batchnorm) == ("frozen", "refresh")
    assert frozen.loss == pytest.approx(refresh.loss)
    assert float(frozen) != pytest.approx(float(refresh), rel=1e-3)


def test_gradient_norms_are_those_of_a_spectrum_where_statistics_are_frozen():
    net = relu_net(norm=nn.BatchNorm1d)
    surface, _ = surface_of(net)
    point = surface.estimated(net)
    norms = {}
    for policy in ("frozen", "refresh"):
        options = {"batchnorm": policy}
        sharp = ll.sharpness(surface, point, kind="sam", invariance=False, **options)
        matrix = CurvatureOperator(surface, point, **options)
        norms[policy] = sharp.gradient_norm, float(matrix.gradient.norm())
    assert norms["frozen"][0] == pytest.approx(norms["frozen"][1], rel=1e-4)
    # the loss hardly depends on the scale before a BatchNorm layer, once statistics follow it
    assert norms["refresh"][0] < 0.9 * norms["refresh"][1]


def test_a_point_that_is_no_minimum_shows_in_the_gradient_norm():
    surface = quadratic()
    at, beside = (
        ll.sharpness(surface, w, kind="sam", invariance=False) for w in (MINIMUM, MINIMUM + 1)
    )
    assert at.gradient_norm < 1e-6 < 4 < beside.gradient_norm


def test_other_examples_and_a_count_of_them():
    surface, point = surface_of(relu_net())
    x, y = surface.data.first().args[0], surface.data.first().target
    part = ll.sharpness(surface, point, kind=SAMSharpness(), count=10, invariance=False)
    by_loader = ll.sharpness(
        surface, point, kind=SAMSharpness(), loader=[(x[:10], y[:10])], invariance=False
    )
    assert part.examples == by_loader.examples == 10
    assert float(part) == pytest.approx(float(by_loader), rel=1e-4)


def test_progress_counts_evaluations():
    counts = []
    surface, point = surface_of(relu_net())
    result = ll.sharpness(
        surface,
        point,
        kind=AverageSharpness(directions=2),
        progress=lambda done, total: counts.append(done),
    )
    assert counts == list(range(1, result.evaluations + 1))


def test_intervals():
    values = torch.tensor([[1.0, 3.0, 5.0], [2.0, 2.0, 2.0]]).double()
    value, interval = summary(values, worst=True)
    assert value.tolist() == [5, 2]
    assert interval.tolist() == [[1, 5], [2, 2]]
    value, interval = summary(values, worst=False)
    assert value.tolist() == [3, 2]
    half = 4.3027 * 2 / math.sqrt(3)  # Student's t for two degrees of freedom
    assert interval[0].tolist() == pytest.approx([3 - half, 3 + half], rel=1e-4)
    assert summary(values[:, :1], worst=False)[1].isinf().all()


def test_bad_arguments_raise():
    surface, point = surface_of(relu_net())
    for radius in (0, -1.0, math.nan, [0.1, 0.0]):
        with pytest.raises(ConfigError, match="radius: expected a number above 0"):
            ll.sharpness(surface, point, kind="sam", radius=radius)
    with pytest.raises(ConfigError, match="radius: expected one or more numbers"):
        ll.sharpness(surface, point, kind="sam", radius=[])
    with pytest.raises(ConfigError, match="kind: expected one of keskar, sam, adaptive, average"):
        ll.sharpness(surface, point, kind="hessian")
    with pytest.raises(LayoutError, match="expected"):
        ll.sharpness(surface, torch.zeros(4))
    with pytest.raises(NonFiniteError, match="NaN"):
        ll.sharpness(surface, torch.full_like(point.weights, math.nan))
    with pytest.raises(ConfigError, match="batchnorm"):
        ll.sharpness(surface, point, batchnorm="fresh")
