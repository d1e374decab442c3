"""What every posterior promises. A new posterior's test inherits, and supplies `make`.

class TestMine(PosteriorContract):
    def make(self, size, dtype):
        return Mine(...)  # the same distribution at every call
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lowland import LowlandError, Point, Posterior


class PosteriorContract:
    random = True  # whether draws depend on the seed
    buffers: dict[str, Tensor] | None = None  # what each point carries

    def make(self, size: int, dtype: torch.dtype) -> Posterior:
        raise NotImplementedError

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("size", [1, 7, 300])
    def test_draws_are_flat_vectors_in_the_dtype(self, size, dtype):
        post = self.make(size, dtype)
        assert post.size == size
        assert post.draw(0).shape == (size,)
        assert post.draw(0).dtype == dtype
        assert not post.draw(0).requires_grad
        samples = post.sample(3)
        assert samples.shape == (3, size)
        assert samples.dtype == dtype

    def test_the_same_number_and_seed_give_the_same_draw(self):
        first, second = self.make(40, torch.float32), self.make(40, torch.float32)
        alone = first.draw(5, seed=3).clone()
        torch.manual_seed(1)  # the global generator is no part of it
        assert torch.equal(first.draw(5, seed=3), alone)
        torch.manual_seed(2)
        assert torch.equal(second.draw(5, seed=3), alone)

    def test_a_draw_does_not_depend_on_the_others(self):
        post = self.make(40, torch.float32)
        forwards = [post.draw(i).clone() for i in range(8)]
        other = self.make(40, torch.float32)
        backwards = [other.draw(i).clone() for i in reversed(range(8))][::-1]
        assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))

    def test_draws_leave_the_global_generator_alone(self):
        post = self.make(40, torch.float32)
        before = torch.get_rng_state()
        post.sample(3)
        assert torch.equal(torch.get_rng_state(), before)

    def test_the_number_of_threads_does_not_change_a_draw(self):
        post = self.make(300_007, torch.float32)
        threads = torch.get_num_threads()
        result = []
        try:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                result.append(post.draw(1).clone())
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(result[0], result[1])
        assert torch.equal(result[0], result[2])

    def test_samples_are_the_first_draws_stacked(self):
        post = self.make(40, torch.float32)
        expected = torch.stack([post.draw(i, seed=4) for i in range(5)])
        assert torch.equal(post.sample(5, seed=4), expected)

    def test_samples_are_the_callers_own(self):
        post = self.make(40, torch.float32)
        expected = post.sample(3)
        post.sample(3).zero_()
        assert torch.equal(post.sample(3), expected)

    def test_a_generator_replaces_the_seed(self):
        post = self.make(40, torch.float32)

        def samples(seed):
            return post.sample(4, generator=torch.Generator().manual_seed(seed), seed=9)

        assert torch.equal(samples(0), samples(0))
        assert torch.equal(samples(0), samples(1)) != self.random
        used = torch.Generator().manual_seed(0)
        pair = [post.sample(4, generator=used) for _ in range(2)]
        assert torch.equal(*pair) != self.random  # and is used up

    def test_seeds_differ(self):
        post = self.make(40, torch.float32)
        assert torch.equal(post.sample(4, seed=0), post.sample(4, seed=1)) != self.random

    def test_no_sample_is_an_error(self):
        with pytest.raises(LowlandError, match="n: expected a whole number of at least 1, got 0"):
            self.make(3, torch.float32).sample(0)

    def test_points_are_draws_with_their_buffers(self):
        post = self.make(40, torch.float32)
        points = list(post.points(3, seed=2))
        assert len(points) == 3
        for i, point in enumerate(points):
            assert isinstance(point, Point)
            assert torch.equal(point.weights, post.draw(i, seed=2))
            if self.buffers is None:
                assert not point.buffers
            else:
                assert point.buffers is not None
                assert point.buffers.keys() == self.buffers.keys()

    def test_support_counts_the_different_draws(self):
        post = self.make(40, torch.float32)
        if post.support is None:
            return
        draws = [tuple(post.draw(i).tolist()) for i in range(3 * post.support)]
        assert len(set(draws)) == post.support
        assert draws == draws[: post.support] * 3

    def test_the_density_is_the_samplers_or_there_is_none(self):
        post = self.make(2, torch.float64)
        try:
            post.log_prob(torch.zeros(2, dtype=torch.float64))
        except LowlandError:
            return
        samples = post.sample(6000)
        assert post.log_prob(samples).shape == (6000,)
        assert post.log_prob(samples).dtype == torch.float64
        # a grid of 8 standard deviations to each side integrates a smooth density exactly
        centre, spread = samples.mean(0), samples.std(0)
        axes = [torch.linspace(c - 8 * s, c + 8 * s, 401) for c, s in zip(centre, spread)]  # noqa: B905
        x, y = torch.meshgrid(*axes, indexing="ij")
        grid = torch.stack([x, y], -1).double()
        cell = float((axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0]))
        density = post.log_prob(grid).exp() * cell
        assert density.shape == (401, 401)
        assert float(density.sum()) == pytest.approx(1, abs=1e-4)
        mean = (density[..., None] * grid).sum((0, 1))
        error = grid - mean
        covariance = torch.einsum("xy,xyi,xyj->ij", density, error, error)
        # 5 standard errors of 6000 samples
        assert torch.allclose(centre, mean, rtol=0, atol=float(5 * spread.max() / 6000**0.5))
        scale = spread[:, None] * spread
        assert torch.allclose(samples.T.cov() / scale, covariance / scale, atol=0.12)
