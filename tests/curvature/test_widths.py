import math

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.errors import ConfigError, LayoutError, NonFiniteError
from lowland.records import WidthsResult
from tests.curvature.nets import EIGENVALUES, MINIMUM, NOISE, blobs, quadratic, relu_net, surface_of
from tests.curvature.test_operators import double_case
from tests.landscape.surfaces import overflowing


def test_along_eigenvectors_the_width_is_in_closed_form():
    result = ll.widths(
        quadratic(), MINIMUM, directions=torch.eye(5), radius=3.0, rise=0.5, tolerance=1e-6
    )
    expected = (2 * 0.5 / EIGENVALUES).sqrt()
    expected[expected > 3] = math.inf
    torch.testing.assert_close(result.width, expected, rtol=0, atol=1e-5)
    loss = NOISE + EIGENVALUES[:, None] * result.t**2 / 2
    torch.testing.assert_close(result.metrics["loss"], loss)
    assert (result.width >= expected).all()  # the first t known to be above
    assert result.tolerance == pytest.approx(3e-6)
    assert (result.invariant, result.directions) == (None, "given")


def test_a_coarser_tolerance_is_kept():
    for tolerance in (0.3, 0.01):
        result = ll.widths(
            quadratic(),
            MINIMUM,
            directions=torch.eye(5)[:2],
            rise=0.5,
            tolerance=tolerance,
            points=4,
        )
        excess = result.width - (2 * 0.5 / EIGENVALUES[:2]).sqrt()
        assert ((excess >= 0) & (excess <= tolerance + 1e-9)).all()


def test_distances_do_not_depend_on_the_lengths_of_directions():
    rows = torch.eye(5)[:2].double()
    one, other = (
        ll.widths(quadratic(), MINIMUM, directions=factor * rows, radius=2 / factor, rise=0.2)
        for factor in (1.0, 4.0)
    )
    torch.testing.assert_close(one.distance, other.distance)
    assert other.length.tolist() == [4.0, 4.0]


def test_eigenvectors_come_from_a_subspace_or_a_spectrum():
    surface, expected = quadratic(), (1 / EIGENVALUES[:2]).sqrt()
    sub = ll.Subspace.hessian(surface, MINIMUM, rank=2)
    spectrum = ll.spectrum(surface, MINIMUM, top=2, steps=1, eigenvectors=True)
    for directions in (sub, spectrum):
        result = ll.widths(surface, MINIMUM, directions=directions, rise=0.5, radius=2.0)
        torch.testing.assert_close(result.width, expected, rtol=0, atol=result.tolerance)


@pytest.mark.parametrize("norm", [None, nn.BatchNorm1d], ids=["relu", "batchnorm"])
def test_filter_normalised_rays_are_invariant_and_plain_ones_are_not(norm):
    surface, point = surface_of(relu_net(norm=norm))
    for normalise, expected in (("filter", True), ("layer", True), (None, False)):
        result = ll.widths(surface, point, directions=2, normalise=normalise, points=4)
        assert result.invariant is expected
        assert result.batchnorm == ("refresh" if norm else "none")
    tanh = ll.widths(*surface_of(relu_net(between=nn.Tanh)), directions=1, points=3)
    assert tanh.invariant is None


def test_losses_and_errors_are_those_of_evaluate(tmp_path):
    surface, point = surface_of(relu_net())
    test = [(x[:7], y[:7]) for x, y in blobs()]
    result = ll.widths(surface, point, directions=2, points=3, loader=test)
    # in an order that does not change from process to process
    assert list(result.metrics) == ["loss", "error", "test_loss", "test_error"]
    rays = ll.directions(surface, point, n=2)
    for i, ray in enumerate(rays):
        points = torch.stack([point.weights + float(t) * ray for t in result.t])
        table, on_test = surface.evaluate(points), surface.evaluate(points, test)
        for name in ("loss", "error"):
            torch.testing.assert_close(
                result.metrics[name][i], table.columns[name], rtol=1e-5, atol=1e-6
            )
            values = result.metrics[f"test_{name}"][i]
            torch.testing.assert_close(values, on_test.columns[name], rtol=1e-5, atol=1e-6)
    loaded = WidthsResult.load(result.save(tmp_path / "widths.json"))
    assert torch.equal(loaded.width, result.width)


@pytest.mark.parametrize(("batchnorm", "agrees"), [("frozen", True), ("refresh", False)])
def test_along_an_eigenvector_the_loss_curves_by_its_eigenvalue(batchnorm, agrees):
    """With the BatchNorm statistics fixed, as in the Hessian."""
    surface, w = double_case("conv_bn")
    hessian = ll.spectrum(surface, w, top=1, probes=0, eigenvectors=True, tolerance=1e-6)
    v = hessian.eigenvectors
    point = ll.Point(w, surface.refresh(w))
    rays = {"directions": torch.cat([v, -v]), "radius": 1e-3, "points": 2, "rise": 1e-9}
    start, end = ll.widths(surface, point, batchnorm=batchnorm, **rays).metrics["loss"].T
    curvature = float((end.sum() - start.sum()) / 1e-6)
    expected = float(hessian.eigenvalues[0])
    assert (abs(curvature / expected - 1) < 0.01) is agrees


def test_plain_rays_are_as_long_as_the_weights_by_default():
    result = ll.widths(quadratic(), MINIMUM, directions=3, normalise=None)
    assert float(result.t[-1]) == pytest.approx(float(MINIMUM.norm()))
    torch.testing.assert_close(result.length, torch.ones(3).double())


def test_the_default_radius_grows_until_half_of_the_rays_rise():
    rows = torch.eye(5)[:2] / 100  # widths of 50 and 71
    result = ll.widths(quadratic(), MINIMUM, directions=rows, rise=0.5)
    assert float(result.t[-1]) == 64
    assert float(result.width[0]) == pytest.approx(50, abs=result.tolerance)
    assert float(result.width[1]) == math.inf


def test_losses_that_are_not_finite_are_kept_and_above_the_rise():
    surface, plane = overflowing()
    result = ll.widths(surface, plane.anchors[0], directions=plane.basis[:1], radius=200.0)
    assert not result.metrics["loss"].isfinite().all()
    assert 0 < float(result.width) < 200
    flat = ll.widths(surface, plane.anchors[0], directions=0 * plane.basis[:1], points=3)
    assert result.metrics["loss"][0, 0] == flat.loss
    assert float(flat.width) == math.inf


def test_bad_arguments_raise():
    surface, point = surface_of(relu_net())
    for name in ("radius", "rise", "tolerance"):
        for value in (0, -1.0, math.nan):
            with pytest.raises(ConfigError, match=f"{name}: expected a number above 0"):
                ll.widths(surface, point, **{name: value})
    with pytest.raises(ConfigError, match="points"):
        ll.widths(surface, point, points=1)
    with pytest.raises(ConfigError, match="normalise"):
        ll.widths(surface, point, normalise="unit")
    with pytest.raises(LayoutError, match="expected"):
        ll.widths(surface, torch.zeros(4))
    with pytest.raises(NonFiniteError, match="NaN"):
        ll.widths(surface, torch.full_like(point.weights, math.nan))
