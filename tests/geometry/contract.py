"""What every shape promises. A new shape's test inherits, and supplies `make` and `by_hand`.

class TestMine(ShapeContract):  # or CurveContract
    def make(self, dtype=torch.float32):
        return Mine(...)  # the same at every call

    def by_hand(self, shape, coords):  # (n, k) float64 -> (n, P) float64
        return ...
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor

import lowland as ll

SIZE = 50
DTYPES = [torch.float32, torch.float64]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vectors(n: int, dtype: torch.dtype = torch.float32, size: int = SIZE, seed: int = 0) -> Tensor:
    """n weight vectors, the same in every dtype."""
    return torch.randn(n, size, generator=generator(seed), dtype=torch.float32).to(dtype)


def barycentric(n: int, k: int, seed: int = 1) -> Tensor:
    """Coordinates (n, k) inside of a simplex."""
    raw = torch.rand(n, k, generator=generator(seed), dtype=torch.float64)
    return raw / raw.sum(1, keepdim=True)


class ShapeContract:
    def make(self, dtype: torch.dtype = torch.float32) -> ll.Shape:
        raise NotImplementedError

    def by_hand(self, shape: Any, coords: Tensor) -> Tensor:
        raise NotImplementedError

    def distribution(self, shape: ll.Shape, i: int) -> Any:
        """The distribution of the i-th coordinate, of scipy."""
        return scipy.stats.uniform(0, 1)

    def some(self, n: int = 7, seed: int = 1) -> Tensor:
        """Coordinates (n, k) inside of the shape."""
        return torch.rand(n, self.make().k, generator=generator(seed), dtype=torch.float64)

    def outside(self) -> Tensor:
        """Coordinates that extend the shape."""
        coords = self.some()
        return torch.cat([coords - 1.3, coords + 1.2])

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_weights_are_the_papers_formula(self, dtype):
        shape, coords = self.make(dtype), self.some()
        w = shape(coords)
        assert w.dtype == dtype
        tolerance = 1e-5 if dtype == torch.float32 else 1e-12
        expected = self.by_hand(shape, coords)
        torch.testing.assert_close(w.double(), expected, rtol=tolerance, atol=tolerance)
        outside = self.outside()  # the same formula extends it
        torch.testing.assert_close(
            shape(outside).double(),
            self.by_hand(shape, outside),
            rtol=tolerance,
            atol=9 * tolerance,
        )

    def test_one_point_and_many(self):
        shape, coords = self.make(), self.some(3)
        many = shape(coords)
        assert many.shape == (3, SIZE)
        assert shape.size == SIZE
        for one, w in zip(shape.points(coords), many, strict=True):
            assert one.shape == (SIZE,)
            torch.testing.assert_close(one, w)
        if shape.k > 1:
            torch.testing.assert_close(shape(coords[1]), many[1])
            torch.testing.assert_close(shape(coords[1].tolist()), many[1])
        else:
            torch.testing.assert_close(shape(float(coords[1])), many[1])
            torch.testing.assert_close(shape(coords[:, 0].tolist()), many)

    def test_the_derivative_is_that_of_the_weights(self):
        shape, coords = self.make(torch.float64), self.some(4)
        result = shape.derivative(coords)
        assert result.shape == (4, shape.k, SIZE)
        for i in range(shape.k):
            step = torch.zeros_like(coords)
            step[:, i] = 1e-6
            numeric = (shape(coords + step) - shape(coords - step)) / 2e-6
            torch.testing.assert_close(result[:, i], numeric, rtol=1e-6, atol=1e-6)

    def test_gradients_reach_the_anchors_by_their_coefficients(self):
        shape, coords = self.make(torch.float64), self.some(1)
        leaf = shape.anchors.clone().requires_grad_()
        w = shape.with_anchors(leaf)(coords)[0]
        direction = vectors(1, torch.float64, seed=9)[0]
        (result,) = torch.autograd.grad((w * direction).sum(), leaf)
        torch.testing.assert_close(result, shape.coefficients(coords).T * direction)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_coordinates_of_points_on_the_shape(self, dtype):
        shape, coords = self.make(dtype), self.some(5)
        w = shape(coords)
        result, far = shape.coords_of(w)
        tolerance = 1e-5 if dtype == torch.float32 else 1e-7
        assert result.dtype == far.dtype == torch.float64
        torch.testing.assert_close(result, coords, rtol=0, atol=tolerance)
        assert float(far.max()) < tolerance * float(w.norm(dim=1).max())
        one, distance = shape.coords_of(ll.Point(w[2]))
        assert one.shape == (shape.k,)
        assert distance.shape == ()
        torch.testing.assert_close(one, result[2])

    def test_points_off_it_are_as_far_as_they_were_moved(self):
        shape, coords = self.make(torch.float64), self.some(3)
        # across all anchors' differences, hence across the shape
        q, _ = torch.linalg.qr((shape.anchors - shape.anchors[0]).T)
        q2, _ = torch.linalg.qr(torch.cat([q, shape.anchors.T], 1))
        away = vectors(1, torch.float64, seed=5)[0]
        away = away - q2 @ (q2.T @ away)
        away = 3 * away / away.norm()
        result, far = shape.coords_of(shape(coords) + away)
        torch.testing.assert_close(result, coords, rtol=0, atol=1e-6)
        torch.testing.assert_close(far, torch.full((3,), 3.0).double(), rtol=1e-9, atol=0)

    def test_weights_of_another_model_have_no_coordinates(self):
        for wrong in (torch.zeros(SIZE + 1), torch.zeros(2 * SIZE), torch.zeros(3, 2)):
            with pytest.raises(ll.LayoutError, match=r"expected .*50.*, got"):
                self.make().coords_of(wrong)

    def test_sampled_coordinates_have_the_shapes_distribution(self):
        shape = self.make()
        coords = shape.sample_coords(2000, generator=generator())
        assert coords.shape == (2000, shape.k)
        assert coords.dtype == torch.float64
        for i in range(shape.k):
            test = scipy.stats.kstest(coords[:, i].numpy(), self.distribution(shape, i).cdf)
            assert test.pvalue > 1e-3
        # the first alone, over many calls: not where the first stratum lies
        g = generator(1)
        firsts = [float(shape.sample_coords(8, generator=g)[0, 0]) for _ in range(500)]
        assert scipy.stats.kstest(firsts, self.distribution(shape, 0).cdf).pvalue > 1e-3
        again = shape.sample_coords(2000, generator=generator())
        assert torch.equal(coords, again)
        state = torch.get_rng_state()
        shape.sample_coords(3, generator=generator())
        assert torch.equal(state, torch.get_rng_state())

    def test_goes_to_disk_and_back(self, tmp_path):
        for dtype in DTYPES:
            shape = self.make(dtype)
            shape.save(tmp_path / "shape.safetensors")
            for back in (type(shape).load(tmp_path / "shape.safetensors"),
                         ll.Shape.load(tmp_path / "shape.safetensors")):  # fmt: skip
                assert type(back) is type(shape)
                assert torch.equal(back.anchors, shape.anchors)
                assert back.anchors.dtype == dtype
                assert (back.free, back.k) == (shape.free, shape.k)
                assert torch.equal(back(self.some()), shape(self.some()))
                computed = {name for name in vars(shape) if name.startswith("_")}
                assert vars(back).keys() == vars(shape).keys() - computed
        other = ll.Line if not isinstance(shape, ll.Line) else ll.Bezier
        with pytest.raises(ll.StoreError, match=f"expected a {other.__name__}, found a"):
            other.load(tmp_path / "shape.safetensors")

    def test_other_anchors(self):
        shape = self.make()
        before = shape.anchors.clone()
        copy = shape.with_anchors(2 * shape.anchors)
        assert type(copy) is type(shape)
        assert (copy.free, copy.k) == (shape.free, shape.k)
        torch.testing.assert_close(copy(self.some()), 2 * shape(self.some()))
        assert torch.equal(shape.anchors, before)
        with pytest.raises(ll.LayoutError, match="anchors: expected"):
            shape.with_anchors(shape.anchors[:, :-1])
        assert torch.equal(shape.to("cpu").anchors, before)

    def test_wrong_coordinates_are_refused(self):
        shape = self.make()
        for wrong in (torch.zeros(2, shape.k + 1), torch.zeros(1, 1, shape.k)):
            with pytest.raises(ll.ConfigError, match=rf"coords: expected \(n, {shape.k}\), got"):
                shape(wrong)

    def test_its_anchors_are_its_own_and_need_no_gradient(self):
        shape = self.make()
        assert not shape.anchors.requires_grad
        assert len(shape.free) == len(shape.anchors)
        torch.testing.assert_close(shape.gram(), shape.anchors.double() @ shape.anchors.double().T)
        assert f"P={SIZE}" in repr(shape)


class CurveContract(ShapeContract):
    def make(self, dtype: torch.dtype = torch.float32) -> ll.Curve:
        raise NotImplementedError

    def test_the_ends_are_its_first_and_last_anchor_bit_by_bit(self):
        for dtype in DTYPES:
            curve = self.make(dtype)
            assert torch.equal(curve(0.0), curve.anchors[0])
            assert torch.equal(curve(1.0), curve.anchors[-1])
            many = curve([0.0, 0.3, 1.0])
            assert torch.equal(many[[0, 2]], curve.anchors[[0, -1]])
            assert (curve.free[0], curve.free[-1]) == (False, False)
            assert all(curve.free[1:-1])

    def test_its_length_is_that_of_a_fine_polyline(self):
        curve = self.make(torch.float64)
        w = curve(torch.linspace(0, 1, 6001, dtype=torch.float64)[:, None])
        steps = (w[1:] - w[:-1]).norm(dim=1)
        assert curve.length() == pytest.approx(float(steps.sum()), rel=1e-6)
        assert float(curve.arc()) == curve.length()
        torch.testing.assert_close(
            curve.length_to([0.0, 0.25, 0.5, 1.0])[1:],
            steps.cumsum(0)[[1499, 2999, 5999]],
            rtol=1e-6,
            atol=0,
        )
        assert curve.length_to([0.0, 1.0])[0] == 0
        assert curve.length_to([-0.1])[0] < 0
        assert curve.length_to([1.1])[0] > curve.length()

    def test_speed_is_that_of_the_derivative(self):
        curve, t = self.make(torch.float64), self.some()
        torch.testing.assert_close(curve.speed(t), curve.derivative(t)[:, 0].norm(dim=1))

    def test_the_length_has_a_gradient_by_the_gram_matrix(self):
        curve = self.make(torch.float64)
        gram = curve.gram().requires_grad_()
        (result,) = torch.autograd.grad(curve.arc(gram), gram)
        push = vectors(1, torch.float64, size=len(gram), seed=4)
        push = push.T @ push
        up, down = (curve.arc(gram.detach() + s * push) for s in (1e-5, -1e-5))
        assert float((result * push).sum()) == pytest.approx(float(up - down) / 2e-5, rel=1e-5)

    def test_even_shares_of_its_length(self):
        curve = self.make(torch.float64)
        t = curve.at_arc(torch.linspace(0, 1, 9))
        assert t.shape == (9, 1)
        assert t[[0, -1], 0].tolist() == [0, 1]
        done = curve.length_to(t)
        expected = torch.linspace(0, 1, 9, dtype=torch.float64) * curve.length()
        torch.testing.assert_close(done, expected, rtol=1e-4, atol=1e-5 * curve.length())

    def test_samples_are_stratified(self):
        t = self.make().sample_coords(64, generator=generator())[:, 0]
        assert sorted((t * 64).int().tolist()) == list(range(64))
        assert t.tolist() != sorted(t.tolist())
        twin = torch.rand(64, generator=generator(), dtype=torch.float64)  # independent draws
        assert sorted((twin * 64).int().tolist()) != list(range(64))
        with pytest.raises(ll.ConfigError, match="n: expected a whole number of at least 1, got 0"):
            self.make().sample_coords(0)

    def test_weights_far_away_are_nearest_to_a_point_inside(self):
        curve = self.make(torch.float64)
        w = vectors(3, torch.float64, seed=8)
        t, far = curve.coords_of(w)
        fine = curve(torch.linspace(0, 1, 3001, dtype=torch.float64)[:, None])
        expected = torch.cdist(w, fine, compute_mode="donot_use_mm_for_euclid_dist").min(1).values
        assert bool((t >= 0).all())
        assert bool((t <= 1).all())
        torch.testing.assert_close(far, expected, rtol=1e-5, atol=0)
        assert bool((far <= expected + 1e-9).all())

    def test_ends_that_make_no_curve_are_refused(self):
        w0, w1 = vectors(2)
        kind = type(self.make())
        with pytest.raises(ll.ConfigError, match="two ends are the same weights"):
            kind.between(w0, w0.clone())
        with pytest.raises(ll.LayoutError, match="of one model"):
            kind.between(w0, torch.zeros(3))
        with pytest.raises(ll.LayoutError, match=r"expected weights \(P,\)"):
            kind.between(w0[None], w1)
        for bad in (math.nan, math.inf):
            with pytest.raises(ll.NonFiniteError, match="the ends 1 holds NaN or infinite"):
                kind.between(w0, torch.full_like(w1, bad))

    def test_points_and_half_precision_are_ends_too(self):
        w0, w1 = vectors(2)
        kind = type(self.make())
        buffers = {"running_mean": torch.zeros(2)}
        curve = kind.between(ll.Point(w0, buffers), w1.bfloat16())
        assert curve.anchors.dtype == torch.float32
        assert torch.equal(curve(0.0), w0)
        assert kind.between(w0, w1.double()).anchors.dtype == torch.float64
        w0.zero_()  # the curve has a copy
        assert float(curve(0.0).norm()) > 0


class FlatContract(ShapeContract):
    def by_hand(self, shape, coords):
        return shape.center.double() + coords @ shape.basis.double()

    def test_the_center_is_at_zero_and_nothing_is_free(self):
        shape = self.make()
        assert torch.equal(shape(torch.zeros(1, shape.k))[0], shape.center)
        assert not any(shape.free)
        assert shape.basis.shape == (shape.k, shape.size)
