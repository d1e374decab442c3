"""Scans against closed forms, and against the surface point by point."""

import math

import pytest
import torch

import lowland as ll
from lowland.records import SurfaceResult
from tests.landscape.surfaces import NOISE, net_surface, one_by_one, plane_of, quadratic
from tests.models import CASES, generator


def test_a_quadratic_row_by_row():
    surface, oracle = quadratic()
    plane = plane_of(surface)
    result = ll.scan(plane, surface, resolution=(5, 3))
    assert isinstance(result, SurfaceResult)
    assert (result.x.shape, result.y.shape, result.loss.shape) == ((5,), (3,), (3, 5))
    assert list(result.metrics) == ["loss", "rmse"]
    assert result.examples == 20
    for j, y in enumerate(result.y):
        for i, x in enumerate(result.x):
            w = plane.center.double() + x * plane.basis[0].double() + y * plane.basis[1].double()
            assert result.loss[j, i] == pytest.approx(float(oracle(w)), rel=1e-5)
            rmse = math.sqrt(2 * (float(oracle(w)) - NOISE))
            assert result.rmse[j, i] == pytest.approx(rmse, rel=1e-5)
    # a broken twin: rows and columns scrambled, as of grids that are not square elsewhere
    assert not torch.allclose(result.loss, result.loss.reshape(5, 3).T.contiguous())


def test_lines_and_rays():
    surface, oracle = quadratic()
    w0, w1 = torch.zeros(3), torch.tensor([1.0, -2.0, 0.5])
    result = ll.scan(ll.Line(w0, w1), surface, resolution=5)
    assert result.y is None
    assert result.x.tolist() == [0, 0.25, 0.5, 0.75, 1]
    expected = [float(oracle(t * w1)) for t in result.x]
    assert result.loss.tolist() == pytest.approx(expected, rel=1e-5)
    assert list(result.marks) == ["w0", "w1"]
    wide = ll.scan(ll.Line(w0, w1), surface, resolution=3, bounds=(-1, 2))
    assert wide.loss[0] == pytest.approx(float(oracle(-w1)), rel=1e-5)
    ray = ll.scan(ll.Subspace(w0, w1[None]), surface, resolution=3)
    assert ray.x.tolist() == [-1, 0, 1]
    assert ray.loss[2] == result.loss[-1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_any_model_has_the_surfaces_own_values(case):
    surface = case.surface()
    w = surface.layout.flatten(case.model())
    plane = ll.Plane(w, *ll.directions(surface, w))
    result = ll.scan(plane, surface, resolution=(3, 2), bounds=((-0.5, 0.5), (0, 0.3)))
    torch.testing.assert_close(
        result.loss, one_by_one(plane, surface, result), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("batchnorm", ["refresh", "frozen"])
@pytest.mark.parametrize("strategy", ["points", "batches", "vmap"])
def test_batchnorm_is_that_of_each_point(batchnorm, strategy):
    case = next(case for case in CASES if case.name == "conv_bn")
    surface = case.surface()
    w = surface.layout.flatten(case.model())
    plane = ll.Plane(w, *ll.directions(surface, w))
    result = ll.scan(plane, surface, resolution=3, batchnorm=batchnorm, strategy=strategy, chunk=4)
    expected = one_by_one(plane, surface, result, batchnorm=batchnorm)
    torch.testing.assert_close(result.loss, expected, rtol=1e-5, atol=1e-5)
    assert result.batchnorm == batchnorm
    other = {"refresh": "frozen", "frozen": "refresh"}[batchnorm]
    twin = one_by_one(plane, surface, result, batchnorm=other)
    assert not torch.allclose(result.loss, twin, rtol=1e-3)


def test_frozen_statistics_raise_where_points_have_their_own():
    case = next(case for case in CASES if case.name == "conv_bn")
    surface = case.surface()
    w = surface.layout.flatten(case.model())
    u, v = torch.randn(2, len(w), generator=generator())
    own = ll.Point(w, surface.refresh(w))
    for plane in (ll.Plane(own, u, v), ll.Plane.through(w + u, own, w + v)):
        with pytest.raises(ll.ConfigError, match="that the Plane was made of"):
            ll.scan(plane, surface, resolution=2, batchnorm="frozen")
        assert ll.scan(plane, surface, resolution=2).batchnorm == "refresh"


def test_wrong_arguments_raise():
    surface, _ = quadratic()
    plane = plane_of(surface)
    with pytest.raises(ll.ConfigError, match=r"resolution: .* got 1"):
        ll.scan(plane, surface, resolution=1)
    with pytest.raises(ll.ConfigError, match=r"resolution: .* got 1"):
        ll.scan(plane, surface, resolution=(4, 1))
    with pytest.raises(ll.ConfigError, match="one number or 2"):
        ll.scan(plane, surface, resolution=(4, 4, 4))
    with pytest.raises(ll.ConfigError, match="bounds"):
        ll.scan(plane, surface, resolution=2, bounds=((1, 0), (0, 1)))
    with pytest.raises(ll.ConfigError, match="one or two coordinates, got 3"):
        ll.scan(ll.Subspace(torch.zeros(3), torch.eye(3)), surface, resolution=2)
    with pytest.raises(ll.ConfigError, match=r"'flatness' is none of loss, .*rmse"):
        ll.scan(plane, surface, resolution=2, metrics=("loss", "flatness"))
    with pytest.raises(ll.ConfigError, match="at least one metric"):
        ll.scan(plane, surface, resolution=2, metrics=())
    with pytest.raises(ll.ConfigError, match="refine"):
        ll.scan(plane, surface, resolution=2, refine=2.0)
    with pytest.raises(ll.ConfigError, match="strategy"):
        ll.scan(plane, surface, resolution=2, strategy="fastest")
    with pytest.raises(ll.LayoutError, match="another model"):
        ll.scan(plane, net_surface(), resolution=2)
