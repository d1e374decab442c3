import pytest
import torch

from lowland.curvature import random_matrix
from lowland.curvature.random_matrix import RandomMatrix
from lowland.errors import ConfigError


def dense(matrix):
    columns = [matrix.times(z) for z in torch.eye(matrix.columns, dtype=torch.float64)]
    return torch.stack(columns, dim=1)


def test_products_are_those_of_the_dense_matrix(monkeypatch):
    monkeypatch.setattr(random_matrix, "CHUNK", 7)
    matrix = RandomMatrix(30, 4, seed=3)
    a = dense(matrix)
    z, v = torch.randn(4).double(), torch.randn(30)
    torch.testing.assert_close(matrix.times(z), a @ z)
    torch.testing.assert_close(matrix.transposed_times(v), a.T @ v.double())
    torch.testing.assert_close(matrix.gram(), a.T @ a)
    inverse = torch.linalg.pinv(a)
    torch.testing.assert_close(matrix.pseudo_inverse_times(v), inverse @ v.double())


def test_entries_are_standard_normal_and_depend_on_the_seed_alone():
    a = dense(RandomMatrix(50_000, 3, seed=0))
    assert torch.equal(a, dense(RandomMatrix(50_000, 3, seed=0)))
    assert not torch.equal(a, dense(RandomMatrix(50_000, 3, seed=1)))
    correlation = a.T @ a / len(a)
    torch.testing.assert_close(correlation, torch.eye(3).double(), rtol=0, atol=0.03)


def blocks_of(monkeypatch, held):
    """The chunks that are made for a pseudo-inverse, by the numbers of their rows."""
    monkeypatch.setattr(random_matrix, "CACHED_ENTRIES", held)
    sizes = []
    make = torch.randn

    def counted(*shape, **options):
        sizes.append(shape[0])
        return make(*shape, **options)

    monkeypatch.setattr(torch, "randn", counted)
    matrix = RandomMatrix(100_000, 3, seed=0)
    matrix.pseudo_inverse_times(torch.ones(100_000))
    return matrix, sizes


def test_of_a_large_matrix_a_chunk_is_made_at_a_time_and_none_is_kept(monkeypatch):
    matrix, sizes = blocks_of(monkeypatch, held=299_999)
    assert max(sizes) == random_matrix.CHUNK
    assert sum(sizes) == 2 * 100_000  # for A^T A and for A^T v
    assert not matrix._blocks


def test_the_chunks_of_a_small_matrix_are_made_once(monkeypatch):
    matrix, sizes = blocks_of(monkeypatch, held=300_000)
    assert sum(sizes) == 100_000
    again = RandomMatrix(100_000, 3, seed=0)
    monkeypatch.setattr(random_matrix, "CACHED_ENTRIES", 0)
    v = torch.linspace(0, 1, 100_000)
    assert torch.equal(matrix.transposed_times(v), again.transposed_times(v))


def test_threads_do_not_change_products():
    matrix, v = RandomMatrix(100_000, 5, seed=0), torch.linspace(-1, 1, 100_000)
    threads = torch.get_num_threads()
    one = matrix.transposed_times(v)
    try:
        torch.set_num_threads(3)
        assert torch.equal(matrix.transposed_times(v), one)
    finally:
        torch.set_num_threads(threads)


def test_more_columns_than_rows_raise():
    with pytest.raises(ConfigError, match=r"subspace: expected a whole number from 1 to 3, got 4"):
        RandomMatrix(3, 4, seed=0)
