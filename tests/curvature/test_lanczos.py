"""Lanczos' method on matrices of known spectrum, and its twin without reorthogonalisation."""

import pytest
import torch

import lowland as ll
from lowland.curvature.lanczos import (
    lanczos_quadrature,
    leading_eigenpairs,
    orthogonalise_,
)


def symmetric(values, seed=0):
    """A dense matrix with these eigenvalues."""
    g = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(len(values), len(values), generator=g).double()).Q
    return q @ torch.as_tensor(values).double().diag() @ q.T


def start(size, seed=0, dtype=torch.float64):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)


class Counted:
    def __init__(self, matrix):
        self.matrix, self.products = matrix, 0

    def __call__(self, v):
        self.products += 1
        return self.matrix @ v.double()


SPECTRUM = torch.cat([torch.tensor([50.0, 20.0, 7.0, 3.0, 2.5]), torch.linspace(-1, 1, 295)])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_leading_pairs_are_those_of_the_dense_matrix(dtype, tolerance):
    matrix = symmetric(SPECTRUM)
    product = Counted(matrix)
    pairs = leading_eigenpairs(product, start(300, dtype=dtype), 5, tolerance=tolerance)
    torch.testing.assert_close(pairs.values, SPECTRUM[:5].double(), rtol=1e-6, atol=1e-6)
    vectors = pairs.vectors.double()
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(5).double(), rtol=0, atol=1e-6)
    residuals = (vectors @ matrix - pairs.values[:, None] * vectors).norm(dim=1)
    assert float(residuals.max()) < 60 * tolerance
    assert float((residuals - pairs.residuals).abs().max()) < 50 * tolerance


def test_restarts_find_eigenvalues_that_lie_close():
    values = torch.linspace(-1, 1, 400)
    product = Counted(symmetric(values))
    pairs = leading_eigenpairs(product, start(400), 3, tolerance=1e-6)
    torch.testing.assert_close(pairs.values, values.flip(0)[:3].double(), rtol=0, atol=1e-9)
    assert product.products > 46  # more than the basis holds


def test_fewer_products_than_arpack():
    from scipy.sparse import linalg

    matrix = symmetric(SPECTRUM)
    ours, theirs = Counted(matrix), Counted(matrix)
    leading_eigenpairs(ours, start(300), 5, tolerance=1e-6)
    operator = linalg.LinearOperator(
        (300, 300), matvec=lambda v: theirs(torch.from_numpy(v.reshape(-1))).numpy()
    )
    linalg.eigsh(operator, k=5, which="LA", v0=start(300).numpy(), tol=1e-6)
    assert ours.products <= theirs.products


@pytest.mark.parametrize(
    "values",
    [[2.0, 2.0, 2.0, 1.0, 0.0, 0.0], [0.0] * 6, [5.0] * 6, [1.0, 0.0, 0.0, 0.0, 0.0, -3.0], [4.0]],
)
def test_repeated_eigenvalues_of_an_invariant_subspace_are_all_found(values):
    matrix = symmetric(values)
    for top in range(1, len(values) + 1):
        pairs = leading_eigenpairs(Counted(matrix), start(len(values)), top, tolerance=1e-8)
        torch.testing.assert_close(pairs.values, torch.tensor(values).double()[:top])


def test_without_convergence_it_raises():
    with pytest.raises(ll.LowlandError, match="3 largest eigenvalues did not converge in 20 prod"):
        leading_eigenpairs(
            Counted(symmetric(torch.linspace(-1, 1, 400))), start(400), 3, tolerance=1e-6, most=20
        )
    with pytest.raises(ll.ConfigError, match="top: expected a whole number from 1 to 4, got 5"):
        leading_eigenpairs(Counted(symmetric([1.0] * 4)), start(4), 5)


def test_quadrature_is_exact_for_polynomials_below_twice_its_steps():
    matrix = symmetric(SPECTRUM / 50)
    v = start(300)
    nodes, weights = lanczos_quadrature(Counted(matrix), v, 4)
    unit = v / v.norm()
    power = unit
    for k in range(8):
        expected = float(unit @ power)
        assert float(weights @ nodes**k) == pytest.approx(expected, rel=1e-10, abs=1e-12), k
        power = matrix @ power


def test_the_complement_holds_none_of_the_vectors():
    matrix = symmetric(SPECTRUM)
    pairs = leading_eigenpairs(Counted(matrix), start(300), 5, tolerance=1e-10)
    nodes, weights = lanczos_quadrature(
        Counted(matrix), start(300, seed=1), 60, complement_of=pairs.vectors
    )
    assert float(nodes.max()) == pytest.approx(1, abs=1e-3)
    assert float(nodes.min()) == pytest.approx(-1, abs=1e-3)
    assert float(weights.sum()) == pytest.approx(1)


def test_an_exhausted_subspace_ends_with_weights_of_zero():
    nodes, weights = lanczos_quadrature(Counted(symmetric([3.0, 3.0, 1.0, 1.0])), start(4), 4)
    assert len(nodes) == 4
    assert weights[2:].tolist() == [0, 0]
    torch.testing.assert_close(nodes[:2], torch.tensor([1.0, 3.0]).double())


def ghosts(nodes, weights):
    """How many nodes lie at the largest eigenvalue."""
    return int(((nodes - 50).abs() < 1e-6).sum())


def test_without_reorthogonalisation_ghost_copies_appear():
    matrix, v = symmetric(SPECTRUM), start(300)
    assert ghosts(*lanczos_quadrature(Counted(matrix), v, 120)) == 1
    # the broken twin: each vector is made orthogonal to the last two alone
    basis, alphas, betas = [v / v.norm()], [], []
    for i in range(120):
        w = matrix @ basis[i]
        alphas.append(basis[i] @ w)
        w = w - alphas[i] * basis[i] - (betas[-1] * basis[i - 1] if i else 0)
        betas.append(w.norm())
        basis.append(w / w.norm())
    beside = torch.stack(betas[:-1])
    tridiagonal = torch.stack(alphas).diag() + beside.diag(1) + beside.diag(-1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    assert ghosts(values, vectors[0] ** 2) > 1


def test_orthogonal_after_gram_schmidt_of_nearly_parallel_vectors():
    basis = torch.linalg.qr(start(200).reshape(20, 10)).Q.T.float()
    vector = basis[0].double() + 1e-7 * start(20, seed=3)
    orthogonalise_(vector, basis)
    assert float((basis.double() @ vector / vector.norm()).abs().max()) < 1e-6
