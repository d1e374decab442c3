"""Scans against closed forms, and against the surface point by point."""

import gc
import math

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.records import SurfaceResult
from tests.models import CASES, blobs, generator, mlp

NOISE = 0.5 * math.log(2 * math.pi)


@pytest.fixture(autouse=True)
def _one_thread(same_threads):
    torch.set_num_threads(1)


def quadratic(rows=20, features=3):
    """L(w) = ½ log 2π + |Xw - y|² / 2n, in float64 for the oracle."""
    g = generator()
    x, y = torch.randn(rows, features, generator=g), torch.randn(rows, 1, generator=g)
    net = nn.Linear(features, 1, bias=False)
    surface = ll.LossSurface(
        net, ll.Regression(noise_variance=1.0), [(x[:13], y[:13]), (x[13:], y[13:])]
    )

    def oracle(w):
        error = x.double() @ w.double() - y[:, 0].double()
        return NOISE + 0.5 * error.square().mean()

    return surface, oracle


def net_surface(**options):
    torch.manual_seed(0)
    return ll.LossSurface(mlp(), ll.Classification(), blobs(), **options)


def plane_of(surface, seed=0, scale=0.5):
    g = generator(seed)
    return ll.Plane.through(*(scale * torch.randn(surface.layout.size, generator=g) for _ in "abc"))


def one_by_one(shape, surface, found, **options):
    """The same losses from `surface(w)`."""
    if found.y is None:
        return torch.stack([surface(shape(t), **options) for t in found.x])
    rows = [[surface(shape(torch.stack([x, y])), **options) for x in found.x] for y in found.y]
    return torch.stack([torch.stack(row) for row in rows])


# -- values ----------------------------------------------------------------------------------------


def test_a_quadratic_row_by_row():
    surface, oracle = quadratic()
    plane = plane_of(surface)
    found = ll.scan(plane, surface, resolution=(5, 3))
    assert isinstance(found, SurfaceResult)
    assert (found.x.shape, found.y.shape, found.loss.shape) == ((5,), (3,), (3, 5))
    assert list(found.figures) == ["loss", "rmse"]
    assert found.rows == 20
    for j, y in enumerate(found.y):
        for i, x in enumerate(found.x):
            w = plane.center.double() + x * plane.basis[0].double() + y * plane.basis[1].double()
            assert found.loss[j, i] == pytest.approx(float(oracle(w)), rel=1e-5)
            rmse = math.sqrt(2 * (float(oracle(w)) - NOISE))
            assert found.rmse[j, i] == pytest.approx(rmse, rel=1e-5)
    # a broken twin: rows and columns scrambled, as of grids that are not square elsewhere
    assert not torch.allclose(found.loss, found.loss.reshape(5, 3).T.contiguous())


def test_the_grid_is_the_box_with_its_margin():
    surface, _ = quadratic()
    plane = plane_of(surface)
    found = ll.scan(plane, surface, resolution=3, margin=0.5)
    (x0, x1), (y0, y1) = plane.box(0.5)
    assert found.x.tolist() == pytest.approx([x0, (x0 + x1) / 2, x1])
    assert found.y.tolist() == pytest.approx([y0, (y0 + y1) / 2, y1])
    given = ll.scan(plane, surface, resolution=2, bounds=((-1, 2), (3, 4)))
    assert (given.x.tolist(), given.y.tolist()) == ([-1, 2], [3, 4])
    w = torch.zeros(3)
    bare = ll.scan(ll.Plane(w, *torch.eye(3)[:2]), surface, resolution=3)
    assert bare.x.tolist() == bare.y.tolist() == [-1, 0, 1]


def test_the_centre_and_the_marks_are_hit_exactly():
    """t = 0 is evaluated, and with the weights themselves."""
    surface = net_surface()
    plane = plane_of(surface)
    seen = []

    def note(surface, point):
        seen.append(point.weights.clone())
        return {"number": len(seen)}

    end = float(plane.marks[1, 0])
    # steps whose sums do not come out even: 0 and the mark are points 3 and 10
    bounds = ((-3 / 7 * end, 13 / 7 * end), (-0.3, 0.6))
    found = ll.scan(
        plane, surface, resolution=(17, 4), bounds=bounds, metrics=("loss", note), strategy="vmap"
    )
    assert found.x[3] == 0
    assert found.y[1] == 0
    assert found.x[10] == plane.marks[1, 0]
    at = int(found.number[1, 3]) - 1
    assert torch.equal(seen[at], plane.center)
    torch.testing.assert_close(found.loss[1, 3], surface(plane.center))
    line = ll.Line(*plane.anchors[:2])
    seen.clear()
    ll.scan(line, surface, resolution=3, metrics=note)
    assert torch.equal(seen[0], line.anchors[0])
    assert torch.equal(seen[2], line.anchors[1])


def test_lines_and_rays():
    surface, oracle = quadratic()
    w0, w1 = torch.zeros(3), torch.tensor([1.0, -2.0, 0.5])
    found = ll.scan(ll.Line(w0, w1), surface, resolution=5)
    assert found.y is None
    assert found.x.tolist() == [0, 0.25, 0.5, 0.75, 1]
    expected = [float(oracle(t * w1)) for t in found.x]
    assert found.loss.tolist() == pytest.approx(expected, rel=1e-5)
    assert list(found.marks) == ["w0", "w1"]
    wide = ll.scan(ll.Line(w0, w1), surface, resolution=3, bounds=(-1, 2))
    assert wide.loss[0] == pytest.approx(float(oracle(-w1)), rel=1e-5)
    ray = ll.scan(ll.Subspace(w0, w1[None]), surface, resolution=3)
    assert ray.x.tolist() == [-1, 0, 1]
    assert ray.loss[2] == found.loss[-1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_any_model_has_the_surfaces_own_values(case):
    surface = case.surface()
    w = surface.layout.flatten(case.model())
    plane = ll.Plane(w, *ll.directions(surface, w))
    found = ll.scan(plane, surface, resolution=(3, 2), bounds=((-0.5, 0.5), (0, 0.3)))
    torch.testing.assert_close(found.loss, one_by_one(plane, surface, found), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batchnorm", ["refresh", "frozen"])
@pytest.mark.parametrize("strategy", ["points", "batches", "vmap"])
def test_batchnorm_is_that_of_each_point(batchnorm, strategy):
    case = next(case for case in CASES if case.name == "conv_bn")
    surface = case.surface()
    w = surface.layout.flatten(case.model())
    plane = ll.Plane(w, *ll.directions(surface, w))
    found = ll.scan(plane, surface, resolution=3, batchnorm=batchnorm, strategy=strategy, chunk=4)
    expected = one_by_one(plane, surface, found, batchnorm=batchnorm)
    torch.testing.assert_close(found.loss, expected, rtol=1e-5, atol=1e-5)
    assert found.batchnorm == batchnorm
    other = {"refresh": "frozen", "frozen": "refresh"}[batchnorm]
    twin = one_by_one(plane, surface, found, batchnorm=other)
    assert not torch.allclose(found.loss, twin, rtol=1e-3)


def test_a_plane_knows_that_its_points_had_statistics():
    case = next(case for case in CASES if case.name == "conv_bn")
    surface = case.surface()
    w = surface.layout.flatten(case.model())
    u, v = torch.randn(2, len(w), generator=generator())
    own = ll.Point(w, surface.refresh(w))
    for plane in (ll.Plane(own, u, v), ll.Plane.through(w + u, own, w + v)):
        with pytest.raises(ll.ConfigError, match="that the Plane was made of"):
            ll.scan(plane, surface, resolution=2, batchnorm="frozen")
        assert ll.scan(plane, surface, resolution=2).batchnorm == "refresh"


@pytest.mark.parametrize("strategy", [None, "points", "batches", "vmap"])
def test_figures_are_those_of_evaluate(strategy):
    surface = net_surface()
    plane = plane_of(surface, scale=2.0)
    names = ("error", "loss", "nll", "ece", "brier")
    options = {"resolution": (4, 3), "strategy": strategy, "chunk": 5 if strategy else None}
    found = ll.scan(plane, surface, metrics=names, **options)
    assert tuple(found.figures) == names
    table = surface.evaluate(plane.points(_coords(found)), strategy="points")
    for name in names:
        torch.testing.assert_close(
            found.figures[name].reshape(-1), getattr(table, name), rtol=1e-5, atol=1e-6
        )
    quick = ll.scan(plane, surface, **options)  # loss and error alone go another way
    torch.testing.assert_close(quick.error.reshape(-1), table.error, rtol=0, atol=1e-6)
    torch.testing.assert_close(quick.loss.reshape(-1), table.loss, rtol=1e-5, atol=1e-6)


def _coords(found):
    n, m = len(found.x), len(found.y)
    return torch.stack([found.x.repeat(m), found.y.repeat_interleave(n)], 1)


def forms():
    g = generator(3)
    x = torch.randn(15, 6, generator=g)
    binary = torch.randint(2, (15,), generator=g)
    labels = torch.randint(2, (15, 3), generator=g).float()
    dense = torch.randint(4, (15, 2), generator=g)
    dense[0, 0] = dense[7] = -100
    missing = torch.randint(3, (15,), generator=g)
    missing[:4] = -100
    return {
        "binary": (nn.Linear(6, 1), x, binary),
        "multilabel": (nn.Linear(6, 3), x, labels),
        "dense": (nn.Sequential(nn.Linear(6, 8), nn.Unflatten(1, (4, 2))), x, dense),
        "ignored": (nn.Linear(6, 3), x, missing),
    }


@pytest.mark.parametrize("form", ["binary", "multilabel", "dense", "ignored"])
@pytest.mark.parametrize("strategy", ["points", "vmap"])
def test_the_error_of_every_form_of_classification(form, strategy):
    torch.manual_seed(0)
    net, x, y = forms()[form]
    batches = [(x[:8], y[:8]), (x[8:], y[8:])]
    surface = ll.LossSurface(net, ll.Classification(), batches)
    plane = plane_of(surface)
    found = ll.scan(plane, surface, resolution=(4, 3), strategy=strategy, chunk=5)
    table = surface.evaluate(plane.points(_coords(found)))
    torch.testing.assert_close(found.error.reshape(-1), table.error, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.loss.reshape(-1), table.loss, rtol=1e-5, atol=1e-6)
    expected = one_by_one(plane, surface, found)  # by the task itself
    torch.testing.assert_close(found.loss, expected, rtol=1e-5, atol=1e-6)
    assert found.error.std() > 0


def test_other_rows_and_fewer_of_them():
    surface = net_surface()
    plane = plane_of(surface)
    x, y = torch.cat([b[0] for b in blobs()]), torch.cat([b[1] for b in blobs()])
    test = [(x[::2], y[::2])]
    found = ll.scan(plane, surface, resolution=2, loader=test)
    torch.testing.assert_close(found.loss, one_by_one(plane, surface, found, loader=test))
    few = ll.scan(plane, surface, resolution=2, count=5)
    assert few.rows == 5
    torch.testing.assert_close(few.loss, one_by_one(plane, surface, few, loader=[(x[:5], y[:5])]))


def test_gradient_norms_and_figures_of_ones_own():
    surface, _ = quadratic()
    plane = plane_of(surface)

    def length(surface, point):
        return {"length": point.weights.norm(), "twice": 2 * float(surface(point))}

    found = ll.scan(plane, surface, resolution=(3, 2), metrics=("gradient_norm", length))
    assert list(found.figures) == ["gradient_norm", "length", "twice"]
    for (j, i), norm in zip(
        torch.cartesian_prod(*map(torch.arange, (2, 3))).tolist(),
        found.gradient_norm.reshape(-1),
        strict=True,
    ):
        w = plane(torch.stack([found.x[i], found.y[j]]))
        assert norm == pytest.approx(surface.value_and_grad(w)[1].norm().item(), rel=1e-5)
        assert found.length[j, i] == pytest.approx(w.norm().item(), rel=1e-5)
        assert found.twice[j, i] == pytest.approx(2 * float(surface(w)), rel=1e-6)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_together_is_the_average_of_probabilities(task):
    if task == "classification":
        surface = net_surface()
    else:
        g = generator(1)
        y = torch.randn(20, 2, generator=g)
        net = nn.Linear(4, 2)
        surface = ll.LossSurface(
            net,
            ll.Regression(noise_variance=0.5, target_mean=[1.0, 2.0], target_std=[3.0, 0.5]),
            [(torch.randn(20, 4, generator=g), y)],
        )
    plane = plane_of(surface)
    fixed = list(plane.anchors[:2] * 1.5)
    found = ll.scan(plane, surface, resolution=(3, 2), together=fixed, strategy="vmap", chunk=4)
    for i, z in enumerate(_coords(found)):
        metrics = ll.predict(surface, [*fixed, plane(z)]).metrics()
        together = found.nll_together.reshape(-1)[i]
        assert together == pytest.approx(metrics["nll"], rel=1e-5)
        if task == "classification":
            error = found.error_together.reshape(-1)[i]
            assert error == pytest.approx(1 - metrics["accuracy"], abs=1e-6)
    assert ("error_together" in found.figures) == (task == "classification")
    assert not torch.allclose(found.nll_together, found.loss)


# -- what is not finite ----------------------------------------------------------------------------


class Overflows(nn.Module):
    """Infinite outputs, then NaN losses, where the first weight is above 80."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(2))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x) * self.scale[0].exp() + self.scale[1]


def overflowing():
    torch.manual_seed(0)
    net = Overflows()
    surface = ll.LossSurface(net, ll.Classification(), blobs())
    w = surface.layout.flatten(net)
    u, v = torch.zeros(2, len(w))
    u[0], v[2] = 1, 1
    return surface, ll.Plane(w, u, v)


@pytest.mark.parametrize("strategy", ["points", "vmap"])
@pytest.mark.parametrize("metrics", [None, ("loss", "error", "ece")])
def test_nan_stays_nan(strategy, metrics):
    surface, plane = overflowing()
    found = ll.scan(
        plane,
        surface,
        resolution=(5, 2),
        bounds=((0, 200), (-1, 1)),
        strategy=strategy,
        metrics=metrics,
    )
    expected = one_by_one(plane, surface, found)
    assert torch.isfinite(expected).any()
    assert not torch.isfinite(expected).all()
    assert torch.equal(torch.isfinite(found.loss), torch.isfinite(expected))
    assert torch.equal(torch.isnan(found.loss), torch.isnan(expected))
    assert torch.equal(torch.isnan(found.error), ~torch.isfinite(expected))


def test_a_surface_without_a_finite_value_is_an_error():
    surface, plane = overflowing()
    with pytest.raises(ll.NonFiniteError, match=r"none of the 4 points has a finite loss"):
        ll.scan(plane, surface, resolution=2, bounds=((150, 200), (-1, 1)))


# -- what is drawn over it -------------------------------------------------------------------------


def test_marks_have_the_names_that_are_given():
    surface, _ = quadratic()
    plane = plane_of(surface)
    assert list(ll.scan(plane, surface, resolution=2).marks) == ["w0", "w1", "w2"]
    found = ll.scan(plane, surface, resolution=2, marks=("SGD", "SWA", "bend"))
    assert list(found.marks) == ["SGD", "SWA", "bend"]
    torch.testing.assert_close(torch.stack(list(found.marks.values())), plane.marks)
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
    found = ll.scan(plane, surface, resolution=2, curves={"simplex": chain}).curves["simplex"]
    for corner in plane.marks:
        assert (found - corner).abs().sum(1).min() < 1e-6
    even = torch.linspace(0, 1, 201, dtype=torch.float64)  # which misses t = 1/3
    twin = plane.coords_of(chain(even))[0]
    assert (twin - plane.marks[1]).abs().sum(1).min() > 1e-3


def test_a_curve_of_the_plane_and_one_that_leaves_it():
    surface = net_surface()
    a, b, theta = (torch.randn(surface.layout.size, generator=generator(i)) for i in range(3))
    curve = ll.Bezier.between(a, b).with_anchors(torch.stack([a, theta, b]))
    plane = ll.Plane.through(a, b, theta)
    off = ll.Line(a, theta + torch.randn(len(a), generator=generator(9)))
    found = ll.scan(plane, surface, resolution=2, curves={"curve": curve, "off": off})
    t = torch.linspace(0, 1, len(found.curves["curve"])).double()
    expected, residual = plane.coords_of(curve(t))
    torch.testing.assert_close(found.curves["curve"], expected, rtol=1e-4, atol=1e-4)
    assert residual.max() < 1e-4
    assert found.about["off"]["curve"] < 1e-4
    expected, residual = plane.coords_of(off(t))
    torch.testing.assert_close(found.curves["off"], expected, rtol=1e-4, atol=1e-4)
    assert found.about["off"]["off"] == pytest.approx(float(residual.max()), rel=1e-5)


def test_planes_of_principal_components_are_as_wide_as_the_path():
    surface, oracle = quadratic(features=6)
    g = generator(5)
    path = torch.randn(12, 6, generator=g) * torch.tensor([5.0, 3, 1, 0.5, 0.1, 0.1])
    sub = ll.Subspace.pca(path, rank=2)
    found = ll.scan(sub, surface, resolution=(3, 4), paths={"SGD": path}, margin=0.1)
    coords, residual = found.paths["SGD"]["coords"], found.paths["SGD"]["residual"]
    assert found.x[0] < coords[:, 0].min()
    assert found.x[-1] > coords[:, 0].max()
    extent = float(coords[:, 1].max() - coords[:, 1].min())
    assert float(found.y[-1] - found.y[0]) == pytest.approx(1.2 * extent, rel=1e-6)
    centred = path.double() - path.double().mean(0)
    s = torch.linalg.svdvals(centred).square()
    torch.testing.assert_close(found.explained, s[:2] / s.sum(), rtol=1e-4, atol=1e-5)
    rest = centred - coords @ sub.basis.double()
    torch.testing.assert_close(residual, rest.norm(dim=1), rtol=1e-4, atol=1e-5)
    w = sub([found.x[1], found.y[2]])
    assert found.loss[2, 1] == pytest.approx(float(oracle(w)), rel=1e-5)
    # around weights that are not the path's mean there is no variance to explain
    other = ll.Subspace(path[0], sub.basis)
    assert ll.scan(other, surface, resolution=2, paths={"SGD": path}).explained is None


def test_the_path_of_a_trajectory(tmp_path):
    surface = net_surface()
    traj = ll.Trajectory.create(tmp_path / "t", surface.layout)
    for i in range(5):
        w = torch.randn(surface.layout.size, generator=generator(i))
        traj.append(w, step=i)
    found = ll.scan(ll.Subspace.pca(traj, rank=2), surface, resolution=2, paths={"SGD": traj})
    assert found.paths["SGD"]["coords"].shape == (5, 2)
    assert 0 < found.explained.sum() < 1


def test_the_record_goes_to_disk_and_back(tmp_path):
    surface = net_surface()
    plane = plane_of(surface)
    line = ll.Line(*plane.anchors[:2] + 0)
    found = ll.scan(plane, surface, resolution=3, curves={"line": line}, paths={"p": plane.anchors})
    back = SurfaceResult.load(found.save(tmp_path / "scan.npz"))
    assert torch.equal(back.loss, found.loss)
    assert torch.equal(back.marks["w1"], found.marks["w1"])
    assert back.about == found.about
    assert back.evaluated == 9


# -- memory, time ----------------------------------------------------------------------------------


def storages():
    """Bytes of the storages that python's tensors hold."""
    found = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, nn.Parameter):
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


@pytest.mark.parametrize("strategy", [None, "points"])
def test_memory_does_not_grow_with_the_grid(strategy):
    held = []

    class Watched(nn.Linear):
        def forward(self, x):
            held.append(storages())
            return super().forward(x)

    net = Watched(100_000, 2)
    surface = ll.LossSurface(
        net, ll.Classification(), [(torch.randn(2, 100_000), torch.tensor([0, 1]))]
    )
    plane = plane_of(surface)
    most = {}
    for resolution in (2, 5):
        held.clear()
        before = storages()
        ll.scan(plane, surface, resolution=resolution, strategy=strategy)
        most[resolution] = (max(held) - before) / (4 * surface.layout.size)
    assert most[5] <= most[2] + 0.01
    assert most[5] < 2.1  # weight vectors beside the anchors


def test_what_a_scan_will_take_is_told_beforehand():
    surface = net_surface()
    plane = plane_of(surface)
    told = ll.forecast(plane, surface, resolution=(12, 9))
    assert (told.points, told.least) == (108, 108)
    assert told.seconds > 0
    assert "108 points" in str(told)
    seen = []
    found = ll.scan(plane, surface, resolution=(12, 9), progress=lambda *a: seen.append(a))
    assert seen[0] == (0, 108)
    assert seen[-1] == (108, 108)
    assert found.about["points"] == found.evaluated == 108


def test_what_makes_no_sense_is_refused():
    surface, _ = quadratic()
    plane = plane_of(surface)
    with pytest.raises(ll.ConfigError, match="resolution 1"):
        ll.scan(plane, surface, resolution=1)
    with pytest.raises(ll.ConfigError, match="resolution 1"):
        ll.scan(plane, surface, resolution=(4, 1))
    with pytest.raises(ll.ConfigError, match="one number or 2"):
        ll.scan(plane, surface, resolution=(4, 4, 4))
    with pytest.raises(ll.ConfigError, match="bounds"):
        ll.scan(plane, surface, resolution=2, bounds=((1, 0), (0, 1)))
    with pytest.raises(ll.ConfigError, match="one or two coordinates, got 3"):
        ll.scan(ll.Subspace(torch.zeros(3), torch.eye(3)), surface, resolution=2)
    with pytest.raises(ll.ConfigError, match=r"'flatness' is none of loss, .*rmse"):
        ll.scan(plane, surface, resolution=2, metrics=("loss", "flatness"))
    with pytest.raises(ll.ConfigError, match="at least one figure"):
        ll.scan(plane, surface, resolution=2, metrics=())
    with pytest.raises(ll.ConfigError, match="refine"):
        ll.scan(plane, surface, resolution=2, refine=2.0)
    with pytest.raises(ll.ConfigError, match="strategy"):
        ll.scan(plane, surface, resolution=2, strategy="fastest")
    with pytest.raises(ll.LayoutError, match="another model"):
        ll.scan(plane, net_surface(), resolution=2)
