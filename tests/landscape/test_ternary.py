"""Triangles against closed forms, and against the surface point by point."""

import gc
import math

import pytest
import torch
from torch import Tensor, nn

import lowland as ll
from lowland.landscape.ternary import barycentric_grid
from tests.landscape.surfaces import STRATEGIES, generator, net_surface, quadratic
from tests.models import conv_bn, images


def triangle(size, scale=0.5, dtype=torch.float32, n=3):
    anchors = scale * torch.randn(n, size, generator=generator(1))
    return ll.Simplex(anchors.to(dtype))


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_quadratic_at_every_point(strategy):
    surface, oracle = quadratic()
    shape = triangle(3)
    result = ll.ternary(shape, surface, resolution=7, strategy=strategy, chunk=4)
    assert result.coords.shape == (28, 3)
    w = result.coords @ shape.anchors.double()
    expected = torch.stack([oracle(one) for one in w])
    torch.testing.assert_close(result.loss, expected, rtol=1e-5, atol=1e-6)
    # along a side it is a parabola: second differences are one number
    side = result.loss[result.coords[:, 2] == 0]
    curvature = side.diff().diff()
    torch.testing.assert_close(curvature, curvature.mean().expand(5), rtol=1e-3, atol=1e-6)
    assert result.examples == 20
    assert result.batchnorm == "none"


@pytest.mark.parametrize("resolution", [2, 3, 15])
def test_the_grid_is_even_and_holds_the_vertices(resolution):
    grid = barycentric_grid(resolution)
    assert grid.shape == (resolution * (resolution + 1) // 2, 3)
    torch.testing.assert_close(grid.sum(1), torch.ones(len(grid), dtype=torch.float64))
    assert bool((grid >= 0).all())
    assert len(grid.unique(dim=0)) == len(grid)
    steps = grid * (resolution - 1)
    torch.testing.assert_close(steps, steps.round())
    for vertex in torch.eye(3, dtype=torch.float64):
        assert bool((grid == vertex).all(1).any())


def test_vertices_are_the_surfaces_own_values_and_lengths_the_distances():
    surface = net_surface()
    shape = triangle(surface.layout.size)
    result = ll.ternary(shape, surface, resolution=3, names=("SGD", "SWA", "third"), split="train")
    for i, anchor in enumerate(shape.anchors):
        at = int((result.coords[:, i] == 1).nonzero())
        assert result.loss[at] == pytest.approx(float(surface(anchor)), rel=1e-6)
    a, b, c = shape.anchors.double()
    expected = torch.stack([(a - b).norm(), (b - c).norm(), (c - a).norm()])
    torch.testing.assert_close(result.lengths, expected, rtol=1e-6, atol=0)
    assert result.names == ["SGD", "SWA", "third"]
    assert result.split == "train"
    assert list(result.metrics) == ["loss", "error"]


def test_corners_are_as_far_apart_as_the_vertices():
    surface = net_surface()
    result = ll.ternary(triangle(surface.layout.size), surface, resolution=2)
    corners = result.corners()
    sides = (corners.roll(-1, 0) - corners).norm(dim=1)
    torch.testing.assert_close(sides, result.lengths)


def test_near_vertices_of_large_weights_keep_their_distances():
    """|a|² + |b|² - 2 ab would lose them."""
    surface = net_surface()
    size = surface.layout.size
    base = 1e3 * torch.randn(size, generator=generator(2), dtype=torch.float64)
    steps = 1e-6 * torch.randn(3, size, generator=generator(3), dtype=torch.float64)
    shape = ll.Simplex(base + steps)
    result = ll.ternary(shape, surface, resolution=2)
    a, b, c = shape.anchors
    expected = torch.stack([(a - b).norm(), (b - c).norm(), (c - a).norm()])
    torch.testing.assert_close(result.lengths, expected, rtol=1e-9, atol=0)
    gram = shape.gram()
    twin = gram[0, 0] + gram[1, 1] - 2 * gram[0, 1]
    assert abs(float(twin.clamp_min(0).sqrt()) / float(expected[0]) - 1) > 1e-3


def test_metrics_of_every_kind_and_other_rows():
    surface = net_surface()
    shape = triangle(surface.layout.size)

    def norm(surface, point):
        return {"norm": point.weights.norm()}

    other = [(x + 1, y) for x, y in surface.data.loader]
    result = ll.ternary(
        shape, surface, resolution=3, loader=other, metrics=["ece", "gradient_norm", norm]
    )
    w = [shape(c[None])[0] for c in result.coords]
    table = surface.evaluate(w, other)
    torch.testing.assert_close(result.ece, table.ece)
    torch.testing.assert_close(result.norm, torch.stack(w).double().norm(dim=1), rtol=1e-5, atol=0)
    gradient = float(surface.value_and_grad(w[4])[1].norm())
    assert result.gradient_norm[4] == pytest.approx(gradient, rel=1e-4)
    own = ll.ternary(shape, surface, resolution=3)
    assert not torch.allclose(own.loss, ll.ternary(shape, surface, resolution=3, loader=other).loss)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_batchnorm_statistics_are_each_points_own(strategy):
    torch.manual_seed(0)
    net = conv_bn()
    surface = ll.LossSurface(net, ll.Classification(), images())
    w = surface.layout.flatten(net)
    anchors = w + 0.3 * torch.randn(3, len(w), generator=generator(1))
    shape = ll.Simplex(anchors)
    result = ll.ternary(shape, surface, resolution=4, strategy=strategy)
    expected = torch.stack([surface(shape(c[None])[0]) for c in result.coords])
    torch.testing.assert_close(result.loss, expected, rtol=1e-4, atol=1e-5)
    frozen = ll.ternary(shape, surface, resolution=4, batchnorm="frozen", strategy=strategy)
    assert not torch.allclose(frozen.loss, result.loss, rtol=1e-3)
    assert (result.batchnorm, frozen.batchnorm) == ("refresh", "frozen")


def test_frozen_statistics_of_vertices_that_have_their_own_are_refused():
    torch.manual_seed(0)
    net = conv_bn()
    surface = ll.LossSurface(net, ll.Classification(), images())
    w = surface.layout.flatten(net)
    steps = 0.1 * torch.randn(3, len(w), generator=generator(1))
    simplex = ll.Simplex([ll.Point(w + step, surface.refresh(w + step)) for step in steps])
    for shape in (simplex, ll.Simplex([ll.Point(w, surface.refresh(w))]).grow().grow(seed=1)):
        with pytest.raises(
            ll.ConfigError, match="batchnorm: 'frozen' has no statistics for points between"
        ):
            ll.ternary(shape, surface, resolution=2, batchnorm="frozen")
        assert ll.ternary(shape, surface, resolution=2).loss.isfinite().all()


def test_a_loss_that_is_not_finite_stays_so():
    surface, _ = quadratic()
    anchors = torch.zeros(3, 3)
    anchors[0] = 1e30
    shape = triangle(3)
    result = ll.ternary(shape.with_anchors(anchors), surface, resolution=3)
    assert result.loss.isfinite().tolist() == [False, False, False, True, True, True]
    with pytest.raises(ll.NonFiniteError, match="none of the 6 points"):
        ll.ternary(shape.with_anchors(anchors[:1].repeat(3, 1)), surface, resolution=3)


@pytest.mark.usefixtures("new_objects")
def test_weights_are_not_held_for_the_grid():
    size = 50_000
    net = nn.Linear(size, 1, bias=False)
    rows = [(torch.ones(1, size), torch.zeros(1, 1))]
    surface = ll.LossSurface(net, ll.Regression(noise_variance=1.0), rows)
    shape = triangle(size, scale=1e-4)

    def most(resolution, **options):
        sizes = [0]

        def count(*args):
            gc.collect()
            tensors = [o for o in gc.get_objects() if type(o) is Tensor and o.numel() >= size]
            storages = {t.untyped_storage().data_ptr(): t.numel() // size for t in tensors}
            sizes.append(sum(storages.values()))

        ll.ternary(shape, surface, resolution=resolution, progress=count, **options)
        return max(sizes)

    few, many = (most(n, strategy="points", chunk=1) for n in (3, 5))  # 6 points, and 15
    assert few == many
    assert most(5, strategy="vmap", chunk=15) > many + 7  # a chunk of all of them is seen

    steps = []
    ll.ternary(shape, surface, resolution=5, progress=lambda done, total: steps.append(done))
    assert steps[-1] == 15


# -- the door --------------------------------------------------------------------------------------


def test_other_shapes_are_refused_with_what_to_do():
    surface, _ = quadratic()
    size = surface.layout.size
    four = triangle(size, n=4)
    four.k = 4
    with pytest.raises(ll.ConfigError, match=r"of 4 anchors and 4 coordinates; take a simplex of"):
        ll.ternary(four, surface)
    a, b, c = torch.eye(3)
    with pytest.raises(ll.ConfigError, match=r"Plane of 3 anchors and 2 coord.*ll.scan"):
        ll.ternary(ll.Plane.through(a, b, c), surface)
    with pytest.raises(ll.ConfigError, match="expected a Simplex of 3 vertices, got Tensor"):
        ll.ternary(torch.eye(3), surface)
    with pytest.raises(ll.ConfigError, match=r"resolution: expected a whole number .* got 1"):
        ll.ternary(triangle(size), surface, resolution=1)
    with pytest.raises(ll.ConfigError, match="names: expected 3, one a vertex, got 2: a, b"):
        ll.ternary(triangle(size), surface, names=["a", "b"])
    with pytest.raises(ll.ConfigError, match="at least one metric"):
        ll.ternary(triangle(size), surface, metrics=[])
    with pytest.raises(ll.LayoutError, match="another model"):
        ll.ternary(triangle(size + 1), surface)
    with pytest.raises(ll.ConfigError, match="'acc' is none of"):
        ll.ternary(triangle(size), surface, metrics=["acc"])
    assert math.isfinite(float(ll.ternary(triangle(size), surface, metrics="loss").loss[0]))


def test_a_complex_of_two_segments_is_no_triangle():
    surface, _ = quadratic()
    shape = ll.SimplicialComplex.connecting(torch.eye(3)[:2], torch.eye(3)[2:])
    with pytest.raises(ll.ConfigError, match="of 2 simplexes is no triangle"):
        ll.ternary(shape, surface)
