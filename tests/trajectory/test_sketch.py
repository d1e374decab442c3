"""Frequent directions against the dense scatter of the same iterates in float64."""

import math

import pytest
import torch
from torch import nn

from lowland import (
    Collector,
    ConfigError,
    Every,
    FrequentDirections,
    LowlandError,
    NonFiniteError,
    ParamLayout,
    Subspace,
    Trajectory,
)
from lowland.tensor_files import same_tree
from tests.trajectory.test_moments import collected, flat_layout, random_walk


def scatter(iterates):
    rows = iterates.double() - iterates.double().mean(0)
    return rows.T @ rows


def squares(sketch):
    rows = sketch.sketch.double()
    return rows.T @ rows


def check_guarantee(kind, *, n, rank, centre=3.0):
    """Ghashami et al. 2016, theorem 1.1, for every k."""
    iterates = random_walk(n, 24, centre=centre, dtype=torch.float64) * torch.linspace(3, 0.2, 24)
    sketch = collected(kind, iterates, rank=rank)
    torch.testing.assert_close(sketch.mean, iterates.mean(0))
    exact = scatter(iterates)
    gap = torch.linalg.eigvalsh(exact - squares(sketch))
    tiny = 1e-9 * float(exact.trace())
    assert float(gap[0]) > -tiny  # never more than there is
    worst = float(gap.abs().max())
    values = torch.linalg.eigvalsh(exact).flip(0)
    for k in range(rank):
        assert worst <= float(values[k:].sum()) / (rank - k) + tiny
    assert worst <= sketch.error_bound + tiny
    assert float(squares(sketch).trace()) + sketch.discarded == pytest.approx(float(exact.trace()))


@pytest.mark.parametrize("n", [2, 9, 17, 18, 40, 150])
@pytest.mark.parametrize("rank", [2, 5, 8])
def test_the_sketch_is_as_near_as_was_proven(n, rank):
    check_guarantee(FrequentDirections, n=n, rank=rank)


class Uncentred(FrequentDirections):
    """The sketch of the weights themselves."""

    def _absorb(self, pieces):
        super()._absorb(pieces)
        if self.count == 1:
            self._filled = 1
        self._rows[self._filled - 1] = torch.cat(pieces)


class FinalMeans(FrequentDirections):
    """Deviations from the mean so far, not scaled for those that it moved away from."""

    def _absorb(self, pieces):
        super()._absorb(pieces)
        if self.count > 1:
            self._rows[self._filled - 1] *= math.sqrt((self.count - 1) / self.count)


class Truncated(FrequentDirections):
    """The best l - 1 directions are kept as they are: nothing bounds what is lost."""

    def _shrink(self):
        _, s, vt = torch.linalg.svd(self._rows, full_matrices=False)
        self._filled = self.rank - 1
        self._rows[: self._filled] = s[: self._filled, None] * vt[: self._filled]


@pytest.mark.parametrize("twin", [Uncentred, FinalMeans, Truncated])
def test_the_check_fails_broken_ones(twin):
    with pytest.raises(AssertionError):
        check_guarantee(twin, n=150, rank=5)


@pytest.mark.parametrize("span", [1, 3, 5])
def test_iterates_that_span_few_dimensions_are_sketched_exactly(span):
    g = torch.Generator().manual_seed(0)
    axes = torch.randn(span, 50, generator=g, dtype=torch.float64)
    iterates = 2 + torch.randn(90, span, generator=g, dtype=torch.float64) @ axes
    sketch = collected(FrequentDirections, iterates, rank=6)
    torch.testing.assert_close(squares(sketch), scatter(iterates), rtol=1e-9, atol=1e-9)
    assert sketch.error_bound < 1e-9
    for rank in (span, 0.9, "evidence"):
        result, expected = (Subspace.pca(s, rank=rank) for s in (sketch, iterates))
        assert result.k == expected.k
        torch.testing.assert_close(
            result.explained_variance_ratio, expected.explained_variance_ratio
        )
        torch.testing.assert_close(
            result.basis.T @ result.basis, expected.basis.T @ expected.basis, rtol=1e-8, atol=1e-8
        )
        torch.testing.assert_close(result.center, expected.center)
    with pytest.raises(ConfigError, match=f"at most {span}, .*90 iterates span"):
        Subspace.pca(sketch, rank=span + 1)


def test_the_components_of_a_long_trajectory():
    g = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(2000, 3, generator=g)).Q.T
    strong = torch.randn(200, 3, generator=g) * torch.tensor([5.0, 3.0, 2.0])
    iterates = 1 + strong @ axes + 0.01 * torch.randn(200, 2000, generator=g)
    sketch = collected(FrequentDirections, iterates, rank=10)
    result, expected = (Subspace.pca(s, rank=3) for s in (sketch, iterates))
    cosines = torch.nn.functional.cosine_similarity(result.basis, expected.basis).abs()
    assert float(cosines.min()) > 0.999
    torch.testing.assert_close(
        result.explained_variance_ratio, expected.explained_variance_ratio, rtol=0.05, atol=0
    )
    assert bool((result.explained_variance_ratio <= expected.explained_variance_ratio + 1e-6).all())
    with pytest.raises(ConfigError, match="this sketch has dropped some"):
        Subspace.pca(sketch, rank="evidence")
    with pytest.raises(ConfigError, match=r"share of at most 0\..* give it more rows"):
        Subspace.pca(sketch, rank=0.99999)


def test_float32_rows_lose_no_more_than_their_rounding():
    iterates = random_walk(80, 300, centre=10.0, sd=0.1)
    sketch = collected(FrequentDirections, iterates, rank=8)
    twin = collected(FrequentDirections, iterates.double(), rank=8)
    assert sketch.sketch.dtype == torch.float32
    torch.testing.assert_close(squares(sketch), squares(twin), rtol=1e-3, atol=1e-4)


def test_it_resumes_bit_by_bit(tmp_path):
    iterates = random_walk(40, 30)
    for stop in (1, 2, 9, 10, 11, 12, 25):
        whole = collected(FrequentDirections, iterates, rank=5)
        half = collected(FrequentDirections, iterates[:stop], rank=5)
        half.save(tmp_path / "half.safetensors")
        loaded = FrequentDirections.load(tmp_path / "half.safetensors")
        again = FrequentDirections(flat_layout(30), rank=5)
        again.load_state_dict(half.state_dict())
        for one in (loaded, again):
            for w in iterates[stop:]:
                one.update(w)
            assert same_tree(one.state_dict(), whole.state_dict())
    with pytest.raises(ConfigError, match="the state has rank=5, this one 6"):
        FrequentDirections(flat_layout(30), rank=6).load_state_dict(whole.state_dict())


def test_it_is_collected_from_models_and_from_stores(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    layout = ParamLayout(model)
    sketch, store = FrequentDirections(layout, rank=3), Trajectory.create(tmp_path / "t", layout)
    collector = Collector(sketch, store, when=Every(1))
    seen = []
    for _ in range(12):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 * torch.randn_like(p))
        collector.step(model)
        seen.append(layout.flatten(model))
    flat = collected(FrequentDirections, torch.stack(seen), rank=3)
    torch.testing.assert_close(squares(sketch), squares(flat), rtol=1e-4, atol=1e-5)
    later = FrequentDirections(layout, rank=3)
    store.into(later)
    torch.testing.assert_close(squares(later), squares(flat), rtol=1e-4, atol=1e-5)
    collector.load_state_dict(collector.state_dict())
    assert sketch.count == 12


def test_an_iterate_that_is_not_finite_changes_nothing():
    sketch = collected(FrequentDirections, random_walk(20, 6), rank=3)
    before = {k: v.clone() if hasattr(v, "clone") else v for k, v in sketch.state_dict().items()}
    with pytest.raises(NonFiniteError):
        sketch.update(torch.full((6,), math.nan))
    assert same_tree(sketch.state_dict(), before)


def test_what_makes_no_sketch_is_refused():
    with pytest.raises(ConfigError, match="rank: expected a whole number of at least 2, got 1"):
        FrequentDirections(flat_layout(3), rank=1)
    sketch = FrequentDirections(flat_layout(6), rank=2)
    with pytest.raises(LowlandError, match="0 of the 1 iterates"):
        Subspace.pca(sketch)
    sketch.update(torch.ones(6))
    with pytest.raises(LowlandError, match="at least two iterates, got 1"):
        Subspace.pca(sketch)
    sketch.update(torch.ones(6))
    with pytest.raises(ConfigError, match="at most 0"):
        Subspace.pca(sketch, rank=1)
    with pytest.raises(LowlandError, match="turns all weights together"):
        sketch.split(flat_layout(3))
    assert torch.equal(sketch.posterior().draw(0), torch.ones(6))
