"""SWAG against what numpy makes of the same iterates in float64."""

import math
import os

import numpy as np
import pytest
import torch

from lowland import SWAG
from lowland.tensor_files import same_tree
from tests.processes import call_in_process
from tests.trajectory.iterates import collected, offline, random_walk
from tests.trajectory.memory import growth, peaks


def covariance(variance, deviations):
    """Maddox et al. 2019, eq. 1 and below it, dense."""
    d = np.asarray(deviations, dtype=np.float64)
    return np.diag(np.asarray(variance, np.float64)) / 2 + d.T @ d / (2 * (len(d) - 1))


def check_swag(kind):
    """The offline covariance of the same iterates, with the ring part full, full, and round."""
    for n in (2, 3, 5, 6, 7, 10, 23):
        iterates = random_walk(n, 6, dtype=torch.float64)
        swag = collected(kind, iterates, rank=5)
        mean, variance, deviations = offline(iterates, 5)
        assert swag.mean.numpy() == pytest.approx(mean, rel=1e-12, abs=1e-13)
        assert swag.variance.numpy() == pytest.approx(variance, rel=1e-12, abs=1e-13)
        rows = swag.deviations.numpy()
        assert rows.shape == deviations.shape == (min(n, 5), 6)
        order = np.argsort(rows[:, 0]), np.argsort(deviations[:, 0])
        assert rows[order[0]] == pytest.approx(deviations[order[1]], rel=1e-11, abs=1e-12)
        # the covariance that draws have: every column of the formula's noise is seen alone
        if n >= 5:
            result = covariance(swag.variance, swag.deviations)
            assert result == pytest.approx(covariance(variance, deviations), rel=1e-11, abs=1e-12)


class MeanBefore(SWAG):
    """Deviations from the mean that does not have the iterate in it yet."""

    def _absorb(self, pieces):
        before = self._mean.clone()
        super()._absorb(pieces)
        if self.rank:
            self._ring[(self.count - 1) % self.rank] = torch.cat(pieces) - before


class FinalMean(SWAG):
    """Deviations from the mean of all iterates, as PCA has them."""

    @property
    def deviations(self):
        shift = torch.stack([self._mean] * min(self.count, self.rank))
        return self._ring[: len(shift)] + 0.1 * shift


class RawMoments(SWAG):
    """E[w^2] - E[w]^2, as swa_gaussian has it."""

    def _absorb(self, pieces):
        super()._absorb(pieces)
        w = torch.cat(pieces).to(self.layout.dtype)
        self._square = w**2 if self.count == 1 else self._square.lerp(w**2, 1 / self.count)

    @property
    def variance(self):
        return self._square - self._mean**2


class UnbiasedVariance(SWAG):
    @property
    def variance(self):
        return self._variance * self.count / (self.count - 1)


class MeanOfTwoStarts(SWAG):
    """lightning-uq-box: starts at w0 and adds w1."""

    def _absorb(self, pieces):
        super()._absorb(pieces)
        if self.count == 1:
            self._mean *= 2


class OldestKept(SWAG):
    """A ring that stops when it is full."""

    def _absorb(self, pieces):
        row = self._ring[(self.count - 1) % self.rank].clone()
        super()._absorb(pieces)
        if self.count > self.rank:
            self._ring[(self.count - 1) % self.rank] = row


def test_swag_is_the_offline_moments():
    check_swag(SWAG)


@pytest.mark.parametrize(
    "twin", [MeanBefore, FinalMean, UnbiasedVariance, MeanOfTwoStarts, OldestKept]
)
def test_the_check_of_swag_fails_broken_ones(twin):
    with pytest.raises(AssertionError):
        check_swag(twin)


def check_cancellation(kind):
    """Weights of 0.5 with standard deviation 1e-4, in float32."""
    iterates = random_walk(300, 200, centre=0.5, sd=1e-4)
    swag = collected(kind, iterates, rank=0)
    assert bool((swag.variance > 0).all())
    ratio = swag.variance.double().numpy() / offline(iterates, 0)[1]
    assert ratio == pytest.approx(np.ones(200), abs=2e-3)


def test_the_variance_does_not_cancel():
    check_cancellation(SWAG)


def test_the_check_of_cancellation_fails_raw_moments():
    check_raw = collected(RawMoments, random_walk(50, 6), rank=0)  # right where nothing cancels
    assert check_raw.variance.numpy() == pytest.approx(offline(random_walk(50, 6), 0)[1], rel=1e-3)
    with pytest.raises(AssertionError):
        check_cancellation(RawMoments)


def check_k(kind):
    """K is the number of columns held, not the maximum rank: 3 iterates under rank 20."""
    iterates = random_walk(3, 4, dtype=torch.float64)
    swag = collected(kind, iterates, rank=20)
    with pytest.warns(UserWarning, match="holds 3 iterates"):
        post = swag.posterior()
    mean, variance, deviations = offline(iterates, 20)
    expected = torch.distributions.MultivariateNormal(
        torch.from_numpy(mean), torch.from_numpy(covariance(variance, deviations))
    )
    w = torch.from_numpy(mean) + 0.3
    assert float(post.log_prob(w)) == pytest.approx(float(expected.log_prob(w)), rel=1e-9)


class MaximumRank(SWAG):
    @property
    def deviations(self):
        return super().deviations * math.sqrt((min(self.count, self.rank) - 1) / (self.rank - 1))


class AllRows(SWAG):
    """Rows that were never written count as columns."""

    @property
    def deviations(self):
        self._ring[self.count :].zero_()
        return self._ring


def test_k_counts_the_columns_held():
    check_k(SWAG)


@pytest.mark.parametrize("twin", [MaximumRank, AllRows])
def test_the_check_of_k_fails_broken_ones(twin):
    with pytest.raises(AssertionError):
        check_k(twin)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, "bfloat16"])
def test_deviations_in_low_precision_leave_mean_and_variance_alone(dtype):
    iterates = random_walk(9, 50)
    short, whole = (collected(SWAG, iterates, rank=4, deviations_dtype=d) for d in (dtype, None))
    assert torch.equal(short.mean, whole.mean)
    assert torch.equal(short.variance, whole.variance)
    assert short.deviations.dtype == (torch.float16 if dtype == torch.float16 else torch.bfloat16)
    assert torch.equal(short.deviations, whole.deviations.to(short.deviations.dtype))


def test_two_perfectly_correlated_weights_through_swag():
    value = random_walk(200, 1, dtype=torch.float64, seed=3)
    swag = collected(SWAG, value.expand(200, 2), rank=20)
    post = swag.posterior()
    diagonal, low_rank = float(swag.variance[0]) / 2, float((swag.deviations[:, 0] ** 2).sum()) / 38
    x = post.sample(5_000)
    correlation = float(torch.corrcoef(x.T)[0, 1])
    assert correlation == pytest.approx(low_rank / (diagonal + low_rank), abs=0.02)
    assert float(x[:, 0].var()) == pytest.approx(diagonal + low_rank, rel=0.07)


def test_fewer_iterates_than_rank_is_a_warning_and_a_full_ring_is_none(recwarn):
    iterates = random_walk(4, 3)
    with pytest.warns(UserWarning, match="SWAG of rank 5 holds 4 iterates"):
        collected(SWAG, iterates, rank=5).posterior()
    collected(SWAG, iterates, rank=4).posterior()
    collected(SWAG, iterates, rank=0).posterior()


def test_mapped_deviations_are_those_in_memory(tmp_path):
    path = tmp_path / "folder" / "deviations"
    iterates = random_walk(9, 40)
    mapped = collected(SWAG, iterates, rank=4, path=path)
    inside = collected(SWAG, iterates, rank=4)
    assert same_tree(mapped.state_dict(), inside.state_dict())
    assert torch.equal(mapped.posterior().draw(1), inside.posterior().draw(1))
    assert path.stat().st_size == 4 * 40 * 4
    # a second one in the same place does not write into the first
    collected(SWAG, iterates + 1, rank=4, path=path)
    assert same_tree(mapped.state_dict(), inside.state_dict())


def test_a_diagonal_needs_no_file(tmp_path):
    swag = collected(SWAG, random_walk(3, 5), rank=0, path=tmp_path / "deviations")
    assert not (tmp_path / "deviations").exists()
    assert swag.deviations.shape == (0, 5)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_peak_memory_is_that_of_the_moments(dtype, width):
    size, rank = 3_000_000, 10
    moments, draws = call_in_process(peaks, size, rank, dtype)
    memory = size * (rank * width + 2 * 4)
    assert moments > 0.9 * memory  # the measure sees it
    room = 16 << 20  # cache-sized parts of two threads, whatever P
    assert moments <= 1.1 * (memory + size * 4) + room  # (K + 3) P floats
    assert draws <= 1.1 * (memory + size * 4) + room  # one draw at a time is the third


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
def test_a_path_holds_deviations_outside_of_the_processs_own_memory(tmp_path):
    """Resident memory grows either way: pages of a mapped file count in it as long as there is
    room. Private memory, which the system cannot take back, does not."""
    size, rank = 2_000_000, 10
    rows = size * 2 * (rank - 1)  # bfloat16
    resident, private = call_in_process(growth, size, rank, None)
    assert resident > 0.9 * rows
    assert private > 0.9 * rows
    resident, private = call_in_process(growth, size, rank, tmp_path / "deviations")
    assert resident > 0.5 * rows  # which is what `top` shows
    assert private < 0.1 * rows
