"""Planes: the contract, distances in them, and points that make none."""

import math

import pytest
import scipy.stats
import torch

import lowland as ll
from tests.geometry.contract import FlatContract, vectors


class TestPlane(FlatContract):
    def make(self, dtype=torch.float32):
        return ll.Plane.through(*vectors(3, dtype))

    def distribution(self, shape, i):
        low, high = shape.marks[:, i].min(), shape.marks[:, i].max()
        return scipy.stats.uniform(float(low), float(high - low))


class TestPlaneByDirections(FlatContract):
    def make(self, dtype=torch.float32):
        w, u, v = vectors(3, dtype)
        return ll.Plane(w, 0.3 * u, v + u)  # neither orthogonal nor of one length

    def distribution(self, shape, i):
        return scipy.stats.uniform(-1, 2)


def test_a_plane_holds_its_three_points_at_their_true_distances():
    a, b, c = points = vectors(3)
    plane = ll.Plane.through(a, b, c)
    gram = plane.basis.double() @ plane.basis.double().T
    torch.testing.assert_close(gram, torch.eye(2).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(plane(plane.marks), points, rtol=1e-5, atol=1e-5)
    distance = torch.cdist(points.double(), points.double())
    torch.testing.assert_close(
        torch.cdist(plane.marks, plane.marks), distance, rtol=1e-6, atol=1e-5
    )
    assert plane.marks[0].tolist() == [0, 0]
    assert plane.marks[1, 1].abs() < 1e-5  # the first direction leads from a to b
    (x0, x1), (y0, y1) = plane.box(0.2)
    low, high = plane.marks.min(0).values, plane.marks.max(0).values
    more = 0.2 * (high - low).max()  # equal to all sides
    assert [x0, y0] == pytest.approx((low - more).tolist())
    assert [x1, y1] == pytest.approx((high + more).tolist())
    assert ll.Plane(a, b, c).box(0.2) == ((-1, 1), (-1, 1))


@pytest.mark.parametrize("off", [1e-4, 0.01, 0.1])
def test_points_nearly_on_a_line_are_not_seen_in_a_stripe(off):
    a, b, noise = vectors(3)
    between = torch.lerp(a, b, 0.4) + off * noise
    plane = ll.Plane.through(a, b, between)
    (x0, x1), (y0, y1) = plane.box(0.2)
    length = float(torch.dist(a, b))
    assert (x0, x1) == pytest.approx((-0.2 * length, 1.2 * length), rel=1e-4)
    assert y1 - y0 == pytest.approx(2 / 3 * (x1 - x0))
    height = float(plane.marks[2, 1])
    assert (y0 + y1) / 2 == pytest.approx(
        height / 2, abs=1e-5 * length
    )  # the marks stay in the middle


@pytest.mark.parametrize("scale", [1.0, 1e-2])
def test_three_points_on_a_line_make_no_plane(scale):
    """The third is rounded to float32, and so is nearly on the line, not on it."""
    a, step = vectors(2, size=5000)
    b = a + scale * step
    for third in (a.lerp(b, 0.3), a.lerp(b, 0.5), a.lerp(b, -2.0), b.clone(), a.clone()):
        with pytest.raises(ll.ConfigError, match="three points lie on a line"):
            ll.Plane.through(a, b, third)
    off = a.lerp(b, 0.5)
    off[0] += 1e-2 * scale * float(step.norm())
    assert ll.Plane.through(a, b, off).k == 2


def test_bad_points_of_a_plane_are_refused():
    a, b, c = vectors(3)
    with pytest.raises(ll.LayoutError, match="of one model"):
        ll.Plane.through(a, b, c[:-1])
    with pytest.raises(ll.NonFiniteError, match="the points 2 holds NaN"):
        ll.Plane.through(a, b, torch.full_like(c, math.nan))
    with pytest.raises(ll.ConfigError, match="a direction is zero"):
        ll.Plane(a, b, torch.zeros_like(c))
    with pytest.raises(ll.ConfigError, match="directions depend on one another"):
        ll.Plane(a, b, -2 * b)


def test_marks_travel_with_the_plane():
    plane = ll.Plane.through(*vectors(3)).to("meta")
    assert plane.anchors.device == plane.marks.device == torch.device("meta")
