"""How many components: against scikit-learn, and shares of the variance by numpy."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.decomposition._pca import _assess_dimension

import lowland as ll
from lowland.geometry.rank import evidence
from tests.geometry.contract import vectors


def planted(rank=4, n=60, size=400, noise=0.05, seed=0):
    """Iterates around a point, with `rank` strong directions and little of all others."""
    g = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(size, rank, generator=g, dtype=torch.float64)).Q.T
    strong = torch.randn(n, rank, generator=g, dtype=torch.float64) * torch.linspace(6, 3, rank)
    rest = noise * torch.randn(n, size, generator=g, dtype=torch.float64)
    return 5 + strong @ axes + rest


def within(iterates):
    """The iterates' coordinates in the K - 1 dimensions that they span, (K, K - 1), by numpy."""
    wide = iterates.double().numpy()
    u, s, _ = np.linalg.svd(wide - wide.mean(0), full_matrices=False)
    return (u * s)[:, :-1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [12, 400])  # fewer dimensions than iterates, and more
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_evidence_picks_what_scikit_learn_does(rank, size, seed):
    iterates = planted(rank, size=size, seed=seed)
    spanned = iterates.numpy() if size < len(iterates) else within(iterates)
    theirs = PCA(n_components="mle", svd_solver="full").fit(spanned)
    sub = ll.Subspace.pca(iterates, rank="evidence")
    assert sub.k == theirs.n_components_
    np.testing.assert_allclose(
        sub.explained_variance_ratio.numpy(), theirs.explained_variance_ratio_, rtol=1e-7
    )
    if size == 12:
        assert sub.k == rank
    else:  # what the docstring says: noise in more dimensions than iterates counts as directions
        assert sub.k > rank


def test_the_evidence_is_that_of_scikit_learn():
    n = 30
    spectrum = torch.linspace(3, 0.1, n - 1, dtype=torch.float64) ** 3
    expected = [_assess_dimension(spectrum.numpy(), k, n) for k in range(1, n - 1)]
    result = evidence(spectrum, n)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-7)
    # in no unit: sums of squares pick what variances do
    scaled = evidence(5 * spectrum, n)
    torch.testing.assert_close(scaled - scaled[0], result - result[0])


def test_equal_eigenvalues_and_few_iterates_have_a_rank_too():
    assert evidence(torch.ones(4, dtype=torch.float64), 9).tolist() == [-math.inf] * 3
    assert ll.Subspace.pca(torch.eye(5), rank="evidence").k == 1
    assert ll.Subspace.pca(vectors(2), rank="evidence").k == 1


@pytest.mark.parametrize("share", [0.01, 0.5, 0.8, 0.95, 0.999999])
def test_a_share_of_the_variance_is_explained_by_as_few_as_can(share):
    iterates = vectors(12, torch.float64, size=300) * torch.linspace(1, 4, 12)[:, None]
    values = np.linalg.svd((iterates - iterates.mean(0)).numpy(), compute_uv=False) ** 2
    shares = np.cumsum(values) / values.sum()
    sub = ll.Subspace.pca(iterates, rank=share)
    assert sub.k == int(np.argmax(shares >= share)) + 1
    np.testing.assert_allclose(
        sub.explained_variance_ratio.cumsum(0).numpy(), shares[: sub.k], rtol=1e-10
    )


def test_a_share_that_is_met_exactly_takes_no_more():
    iterates = torch.tensor([[3.0, 0, 0], [-3.0, 0, 0], [0, 1.0, 0], [0, -1.0, 0]])
    assert ll.Subspace.pca(iterates, rank=0.9).k == 1
    assert ll.Subspace.pca(iterates, rank=0.91).k == 2


def test_what_is_explained_travels_with_the_shape(tmp_path):
    iterates = vectors(6)
    sub = ll.Subspace.pca(iterates, rank=3)
    assert sub.explained_variance_ratio.shape == (3,)
    assert sub.explained_variance_ratio.dtype == torch.float64
    assert sub.eigenvalues is None
    sub.save(tmp_path / "sub.safetensors")
    assert torch.equal(
        ll.Subspace.load(tmp_path / "sub.safetensors").explained_variance_ratio,
        sub.explained_variance_ratio,
    )
    assert sub.to("meta").explained_variance_ratio.device == torch.device("meta")
    assert ll.Subspace.random(iterates[0]).explained_variance_ratio is None
    # a direction's length is the standard deviation along it
    total = iterates.double().var(0).sum()
    torch.testing.assert_close(
        (sub.basis.double() ** 2).sum(1) / total, sub.explained_variance_ratio
    )


@pytest.mark.parametrize("rank", [0.0, 1.0, -0.5, 1.5, math.nan, math.inf])
def test_a_share_is_between_none_and_all(rank):
    with pytest.raises(ll.ConfigError, match="a share of the variance between 0 and 1"):
        ll.Subspace.pca(vectors(4), rank=rank)


def test_other_words_are_refused():
    with pytest.raises(ll.ConfigError, match="a number or 'evidence', got 'mle'"):
        ll.Subspace.pca(vectors(4), rank="mle")
    same = vectors(1).expand(4, -1)
    for rank in (1, 0.5, "evidence"):
        with pytest.raises(
            ll.ConfigError, match=r"at most 0, .*span.* collect iterates that differ"
        ):
            ll.Subspace.pca(same, rank=rank)


def test_iterates_that_are_not_finite_are_named():
    iterates = vectors(4).clone()
    iterates[2, 1] = math.nan
    with pytest.raises(ll.NonFiniteError, match="iterate 2 of 4 has a NaN"):
        ll.Subspace.pca(iterates, rank=1)


def test_iterates_of_an_optimiser_give_a_subspace_without_gradients():
    iterates = vectors(4).clone().requires_grad_()
    assert not ll.Subspace.pca(iterates, rank=1).basis.requires_grad


def test_deviations_of_swag_span_as_many_dimensions():
    swag = ll.SWAG(ll.ParamLayout(torch.nn.Linear(9, 1)), rank=5)
    for seed in range(12):
        swag.update(torch.randn(10, generator=torch.Generator().manual_seed(seed)))
    assert ll.Subspace.pca(swag, rank=5).k == 5
    with pytest.raises(ll.ConfigError, match=r"1 to 5, which 5 deviations .*rank= of SWAG"):
        ll.Subspace.pca(swag, rank=6)


def test_components_are_scaled_by_standard_deviations_of_a_sample():
    iterates = planted(2, n=10)
    sub = ll.Subspace.pca(iterates, rank=2)
    spread = sub.coords_of(iterates)[0].var(0)  # over K - 1
    torch.testing.assert_close(spread, torch.ones(2).double(), rtol=1e-8, atol=0)
    twin = sub.basis * math.sqrt(9 / 10)  # over K
    off = ll.Subspace(sub.center, twin).coords_of(iterates)[0].var(0)
    assert float((off - 1).abs().min()) > 0.1


def test_what_a_subspace_knows_of_its_directions_is_in_its_file(tmp_path):
    model = torch.nn.Linear(3, 1)
    data = [(torch.randn(6, 3), torch.randn(6, 1))]
    surface = ll.LossSurface(model, ll.Regression(noise_variance=1.0), data)
    w = surface.layout.flatten(model)
    for name, sub in (
        ("explained_variance_ratio", ll.Subspace.pca(torch.randn(5, 8), rank=2)),
        ("eigenvalues", ll.Subspace.hessian(surface, w, rank=2)),
    ):
        sub.save(tmp_path / name)
        assert torch.equal(getattr(ll.Shape.load(tmp_path / name), name), getattr(sub, name))
