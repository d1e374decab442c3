"""Marks, curves and paths over a scan."""

import pytest
import torch

import lowland as ll
from lowland.records import SurfaceResult
from tests.landscape.surfaces import net_surface, plane_of, quadratic
from tests.models import generator


def test_marks_have_their_names():
    surface, _ = quadratic()
    plane = plane_of(surface)
    assert list(ll.scan(plane, surface, resolution=2).marks) == ["w0", "w1", "w2"]
    result = ll.scan(plane, surface, resolution=2, marks=("SGD", "SWA", "bend"))
    assert list(result.marks) == ["SGD", "SWA", "bend"]
    torch.testing.assert_close(torch.stack(list(result.marks.values())), plane.marks)
    middle = plane([0.5, 0.25])
    projected = ll.scan(plane, surface, resolution=2, marks={"SWA": middle}).marks
    torch.testing.assert_close(
        projected["SWA"], torch.tensor([0.5, 0.25]).double(), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ll.ConfigError, match="expected 3 names"):
        ll.scan(plane, surface, resolution=2, marks=("a", "b"))


def test_the_corners_of_a_closed_chain_are_points_of_it():
    surface = net_surface()
    plane = plane_of(surface)
    a, b, c = plane(plane.marks)
    chain = ll.PolyChain.between(a, b, bends=2).with_anchors(torch.stack([a, b, c, a]))
    result = ll.scan(plane, surface, resolution=2, curves={"simplex": chain}).curves["simplex"]
    for corner in plane.marks:
        assert (result - corner).abs().sum(1).min() < 1e-6
    even = torch.linspace(0, 1, 201, dtype=torch.float64)  # which misses t = 1/3
    twin = plane.coords_of(chain(even))[0]
    assert (twin - plane.marks[1]).abs().sum(1).min() > 1e-3


def test_a_curve_of_the_plane_and_one_that_leaves_it():
    surface = net_surface()
    a, b, theta = (torch.randn(surface.layout.size, generator=generator(i)) for i in range(3))
    curve = ll.Bezier.between(a, b).with_anchors(torch.stack([a, theta, b]))
    plane = ll.Plane.through(a, b, theta)
    off = ll.Line(a, theta + torch.randn(len(a), generator=generator(9)))
    result = ll.scan(plane, surface, resolution=2, curves={"curve": curve, "off": off})
    t = torch.linspace(0, 1, len(result.curves["curve"])).double()
    expected, residual = plane.coords_of(curve(t))
    torch.testing.assert_close(result.curves["curve"], expected, rtol=1e-4, atol=1e-4)
    assert residual.max() < 1e-4
    assert result.about["off"]["curve"] < 1e-4
    expected, residual = plane.coords_of(off(t))
    torch.testing.assert_close(result.curves["off"], expected, rtol=1e-4, atol=1e-4)
    assert result.about["off"]["off"] == pytest.approx(float(residual.max()), rel=1e-5)


def test_planes_of_principal_components_are_as_wide_as_the_path():
    surface, oracle = quadratic(features=6)
    g = generator(5)
    path = torch.randn(12, 6, generator=g) * torch.tensor([5.0, 3, 1, 0.5, 0.1, 0.1])
    sub = ll.Subspace.pca(path, rank=2)
    result = ll.scan(sub, surface, resolution=(3, 4), paths={"SGD": path}, margin=0.1)
    coords, residual = result.paths["SGD"]["coords"], result.paths["SGD"]["residual"]
    assert result.x[0] < coords[:, 0].min()
    assert result.x[-1] > coords[:, 0].max()
    extent = float(coords[:, 1].max() - coords[:, 1].min())
    assert float(result.y[-1] - result.y[0]) == pytest.approx(1.2 * extent, rel=1e-6)
    centred = path.double() - path.double().mean(0)
    s = torch.linalg.svdvals(centred).square()
    torch.testing.assert_close(
        result.explained_variance_ratio, s[:2] / s.sum(), rtol=1e-4, atol=1e-5
    )
    rest = centred - coords @ sub.basis.double()
    torch.testing.assert_close(residual, rest.norm(dim=1), rtol=1e-4, atol=1e-5)
    w = sub([result.x[1], result.y[2]])
    assert result.loss[2, 1] == pytest.approx(float(oracle(w)), rel=1e-5)
    # around weights that are not the path's mean there is no variance to explain
    other = ll.Subspace(path[0], sub.basis)
    assert (
        ll.scan(other, surface, resolution=2, paths={"SGD": path}).explained_variance_ratio is None
    )


def test_the_path_of_a_trajectory(tmp_path):
    surface = net_surface()
    traj = ll.Trajectory.create(tmp_path / "t", surface.layout)
    for i in range(5):
        w = torch.randn(surface.layout.size, generator=generator(i))
        traj.append(w, step=i)
    result = ll.scan(ll.Subspace.pca(traj, rank=2), surface, resolution=2, paths={"SGD": traj})
    assert result.paths["SGD"]["coords"].shape == (5, 2)
    assert 0 < result.explained_variance_ratio.sum() < 1


def test_the_record_goes_to_disk_and_back(tmp_path):
    surface = net_surface()
    plane = plane_of(surface)
    line = ll.Line(*plane.anchors[:2] + 0)
    result = ll.scan(
        plane, surface, resolution=3, curves={"line": line}, paths={"p": plane.anchors}
    )
    back = SurfaceResult.load(result.save(tmp_path / "scan.npz"))
    assert torch.equal(back.loss, result.loss)
    assert torch.equal(back.marks["w1"], result.marks["w1"])
    assert back.about == result.about
    assert back.evaluations == 9


def test_overlay_adds_to_a_finished_scan(monkeypatch):
    """The same as with the scan's own arguments, and nothing is evaluated."""
    surface = net_surface()
    plane = plane_of(surface)
    a, b, c = plane(plane.marks)
    overlays = {
        "curves": {"line": ll.Line(a, b + torch.ones_like(b))},
        "paths": {"iterates": torch.stack([a, b, c, a])},
    }
    plain = ll.scan(plane, surface, resolution=2)
    whole = ll.scan(plane, surface, resolution=2, **overlays)
    monkeypatch.setattr(surface, "forward", lambda *a, **k: pytest.fail("evaluated"))
    result = ll.overlay(plain, plane, marks={"middle": plane([0.5, 0.25])}, **overlays)
    assert list(result.marks) == ["w0", "w1", "w2", "middle"]
    torch.testing.assert_close(
        result.marks["middle"], torch.tensor([0.5, 0.25]).double(), rtol=1e-5, atol=1e-6
    )
    assert torch.equal(result.curves["line"], whole.curves["line"])
    assert result.about["off"] == whole.about["off"]
    assert torch.equal(result.paths["iterates"]["residual"], whole.paths["iterates"]["residual"])
    assert torch.equal(result.loss, plain.loss)
    assert not plain.curves  # the argument does not change
    assert list(ll.overlay(result, plane).curves) == ["line"]
    with pytest.raises(ll.ConfigError, match="not along a curve"):
        ll.overlay(plain, ll.Line(a, b), curves=overlays["curves"])
