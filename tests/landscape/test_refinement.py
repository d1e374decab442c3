"""Refinement gives the same picture from fewer points, on surfaces with exact values."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import lowland as ll
from lowland.landscape import refinement
from lowland.records.shades import CLASSIC, classic_shade
from tests.landscape.surfaces import net_surface, overflowing
from tests.models import generator

WELLS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.45, 0.8]], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _one_thread(same_threads):
    torch.set_num_threads(1)


def wells(z, sharp=1.0):
    """Three minima of loss 0.01 to 0.02, 2.3 far from all, as on planes of networks."""
    depths = [2.29, 2.28, 2.28]
    total = torch.full((len(z),), 2.3, dtype=torch.float64)
    for well, depth in zip(WELLS, depths, strict=True):
        square = (z - well).square().sum(1)
        total = total - depth * torch.exp(-((square / (0.16 / sharp)) ** 1.3))
    return total.clamp_min(1e-3)


def picture(function, n=41, m=41, name="loss", tolerance=0.02):
    """The evaluated mask, all values and the exact ones of a function on the box of the wells."""
    x, y = torch.linspace(-0.2, 1.2, n), torch.linspace(-0.16, 0.96, m)
    coords = torch.stack([x.repeat(m), y.repeat_interleave(n)], 1).double()
    exact = function(coords)
    marks = torch.stack(
        [(WELLS[:, 0] - x[0]) / (x[1] - x[0]), (WELLS[:, 1] - y[0]) / (y[1] - y[0])], 1
    )
    seen = []

    def evaluate(points):
        assert not set(points) & set(seen)  # no point twice
        seen.extend(points)
        return exact[points]

    samples = refinement.refine(name, (m, n), marks, evaluate, tolerance=tolerance)
    assert int(samples.evaluated.sum()) == len(seen)
    return samples.evaluated, samples.fill(), exact


def colours_off(result, exact, name="loss"):
    vmax, alpha = CLASSIC.get(name, (None, None))
    scale = {"vmax": vmax, "alpha": alpha, "low": float(exact.min()), "high": float(exact.max())}
    return np.abs(classic_shade(result, **scale) - classic_shade(exact, **scale))


@pytest.mark.parametrize(("sharp", "share"), [(1.0, 0.25), (2.0, 0.4)])
def test_the_same_picture_from_a_quarter_of_the_points(sharp, share):
    evaluated, result, exact = picture(lambda z: wells(z, sharp))
    assert torch.equal(result[evaluated], exact[evaluated])
    assert colours_off(result, exact).max() < 0.02
    assert evaluated.double().mean() <= share
    # a broken twin: as many points in an even grid, which is what the coarse start alone is
    step = math.ceil(1 / math.sqrt(float(evaluated.double().mean())))
    even = torch.zeros(41, 41, dtype=torch.bool)
    even[::step, ::step] = even[-1:, ::step] = even[::step, -1:] = even[-1, -1] = True
    even = even.reshape(-1)
    values = torch.where(even, exact, math.nan)
    twin = refinement.Samples("loss", refinement.lattice((41, 41)), values, even).fill()
    assert colours_off(twin, exact).max() > 1.2 * colours_off(result, exact).max()


def test_grids_that_are_not_square():
    evaluated, result, exact = picture(wells, n=61, m=25)
    assert colours_off(result, exact).max() < 0.02
    assert evaluated.double().mean() < 0.35


def test_a_wider_tolerance_takes_fewer_points():
    counts = [int(picture(wells, tolerance=t)[0].sum()) for t in (0.005, 0.02, 0.1)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2]


def test_nothing_is_refined_above_the_cut_off():
    """Everything from vmax up has one colour: a wild surface there costs no point."""

    def wild(z):
        return 50 + 30 * torch.sin(40 * z[:, 0]) * torch.sin(37 * z[:, 1])

    def surface(z):  # a floor to the left, which the scale is about, and wild to the right
        return torch.where(z[:, 0] < 0, wells(z).clamp_max(4), wells(z) + wild(z))

    evaluated, result, exact = picture(surface)
    assert colours_off(result, exact).max() < 0.02
    right = evaluated.reshape(41, 41)[:, 31:]
    assert float(right.double().mean()) < 0.15


def test_noise_is_evaluated_and_not_interpolated():
    noise = torch.rand(41 * 41, generator=generator(), dtype=torch.float64)
    evaluated, result, exact = picture(lambda z: noise)
    assert evaluated.double().mean() > 0.8
    assert (colours_off(result, exact) > 0.02).mean() < 0.05


def test_nan_is_never_interpolated_over():
    def broken(z):
        values = wells(z)
        values[z[:, 0] > 0.7] = math.inf
        values[z[:, 1] > 0.6] = math.nan
        return values

    evaluated, result, exact = picture(broken)
    bad = ~torch.isfinite(exact)
    assert not torch.isfinite(result[bad]).any()  # no number where there is none
    assert torch.isfinite(result[~bad]).all()
    assert torch.equal(result[evaluated].isnan(), exact[evaluated].isnan())
    assert torch.equal(result[evaluated].isinf(), exact[evaluated].isinf())
    assert colours_off(result[~bad], exact[~bad]).max() < 0.02
    assert evaluated.double().mean() < 0.6


def test_thin_plates_are_scipys():
    from scipy.interpolate import RBFInterpolator

    g = generator(1)
    nodes = torch.rand(60, 2, generator=g, dtype=torch.float64) * 40
    values = torch.sin(nodes[:, 0] / 9) + nodes[:, 1] / 20
    at = torch.rand(200, 2, generator=g, dtype=torch.float64) * 40
    theirs = RBFInterpolator(nodes, values, neighbors=24, kernel="thin_plate_spline", degree=1)(at)
    result, reach = refinement.interpolate(at, nodes, values)
    np.testing.assert_allclose(result, theirs, atol=1e-8)
    np.testing.assert_allclose(reach, torch.cdist(at, nodes).amin(1))
    left_out, _ = refinement.interpolate(nodes, nodes, values, leave_out=True)
    for i in (0, 17, 59):
        rest = torch.arange(60) != i
        alone, _ = refinement.interpolate(nodes[i : i + 1], nodes[rest], values[rest])
        assert left_out[i] == pytest.approx(float(alone[0]), abs=1e-9)


def test_points_on_a_line_do_not_tilt():
    nodes = torch.tensor([[0.0, 0.0], [1, 0], [2, 0], [3, 0]], dtype=torch.float64)
    values = torch.tensor([0.0, 1, 2, 3], dtype=torch.float64)
    result, _ = refinement.interpolate(torch.tensor([[1.2, 1.0]]).double(), nodes, values)
    assert 0 <= float(result[0]) <= 3


# -- through scan ----------------------------------------------------------------------------------


def test_the_record_of_a_refined_scan_has_the_mask_of_evaluated_points():
    surface = net_surface()
    line = ll.Plane.through(
        *(torch.randn(surface.layout.size, generator=generator(i)) for i in range(3))
    )
    full = ll.scan(line, surface, resolution=33)
    result = ll.scan(line, surface, resolution=33, refine=True)
    assert result.evaluated_mask.shape == result.loss.shape == (33, 33)
    assert (
        result.evaluations
        == int(result.evaluated_mask.sum())
        == result.about["points"]
        < 33 * 33 / 3
    )
    torch.testing.assert_close(result.loss[result.evaluated_mask], full.loss[result.evaluated_mask])
    assert colours_off(result.loss, full.loss).max() < 0.02
    forecast = ll.forecast(line, surface, resolution=33, refine=True)
    assert forecast.least < result.evaluations <= forecast.points == 33 * 33
    assert full.evaluated_mask is None


def test_lines_are_refined_too():
    surface = net_surface()
    w = [3 * torch.randn(surface.layout.size, generator=generator(i)) for i in range(2)]
    full = ll.scan(ll.Line(*w), surface, resolution=201)
    result = ll.scan(ll.Line(*w), surface, resolution=201, refine=True)
    assert result.evaluations < 80
    assert colours_off(result.loss, full.loss).max() < 0.02


def test_a_network_that_overflows_is_refined():
    surface, plane = overflowing()
    options = {"resolution": (41, 11), "bounds": ((0, 200), (-1, 1))}
    full = ll.scan(plane, surface, **options)
    result = ll.scan(plane, surface, refine=True, **options)
    bad = ~torch.isfinite(full.loss)
    assert bad.any()
    assert not torch.isfinite(result.loss[bad]).any()
    assert torch.isfinite(result.loss[~bad]).all()


def test_all_points_of_small_grids_are_evaluated():
    surface = net_surface()
    w = torch.zeros(surface.layout.size)
    result = ll.scan(
        ll.Plane(w, *ll.directions(surface, w + 1)), surface, resolution=5, refine=True
    )
    assert result.evaluations == 25


def test_losses_above_the_classic_scale_are_refined_as_they_are_drawn():
    def plane(low):
        model = nn.Linear(2, 1, bias=False)
        rows = [(torch.eye(2), torch.tensor([[0.0], [0.0]]))]
        task = ll.Regression(noise_variance=1.0)
        surface = ll.LossSurface(model, task, rows)
        shape = ll.Plane(torch.tensor([low, 0.0]), *torch.eye(2))
        return ll.scan(shape, surface, resolution=21, refine=0.02, bounds=((0, 6), (-6, 6)))

    high = plane(20.0)  # the least loss is 100
    coarse = ll.forecast(
        ll.Plane(torch.zeros(2), *torch.eye(2)),
        ll.LossSurface(
            nn.Linear(2, 1, bias=False),
            ll.Regression(noise_variance=1.0),
            [(torch.eye(2), torch.zeros(2, 1))],
        ),
        resolution=21,
        refine=0.02,
    ).least
    assert high.evaluations > coarse
