"""Principal components, against a singular value decomposition in float64."""

import math

import numpy as np
import pytest
import torch

import lowland as ll
from tests.geometry.contract import vectors


def by_svd(iterates, rank):
    """Mean and components times standard deviations, by numpy in float64."""
    wide = iterates.double().numpy()
    mean = wide.mean(0)
    _, s, vt = np.linalg.svd(wide - mean, full_matrices=False)
    return mean, s[:rank, None] * vt[:rank] / math.sqrt(len(wide) - 1)


def assert_components(sub, mean, rows, tolerance=1e-5):
    np.testing.assert_allclose(sub.center.double(), mean, rtol=tolerance, atol=tolerance)
    result = sub.basis.double().numpy()
    signs = np.sign((result * rows).sum(1, keepdims=True))  # a component has no sign
    scale = np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(signs * result / scale, rows / scale, rtol=0, atol=tolerance)


def random_walk(n=12, size=3000):
    """Iterates that drift, far from the origin, as those of SGD do."""
    steps = vectors(n, size=size, seed=3) * torch.linspace(1, 0.2, n)[:, None]
    return 10 * vectors(1, size=size, seed=4) + 0.1 * steps.cumsum(0)


def test_components_of_a_tensor_are_those_of_a_decomposition_in_float64():
    iterates = random_walk()
    assert_components(ll.Subspace.pca(iterates, rank=5), *by_svd(iterates, 5))
    # the broken twin: iterates that are not centred
    _, rows = by_svd(iterates, 5)
    gram = iterates.double() @ iterates.double().T
    _, vecs = torch.linalg.eigh(gram)
    twin = (vecs.flip(1)[:, :5].T @ iterates.double()).numpy() / math.sqrt(11)
    assert abs(np.linalg.norm(twin[0]) / np.linalg.norm(rows[0]) - 1) > 1


def test_blocks_of_columns_do_not_change_the_components(monkeypatch):
    iterates = random_walk()
    expected = by_svd(iterates, 5)
    monkeypatch.setattr("lowland.geometry.pca._LEAST", 1)
    threads = torch.get_num_threads()
    for values in (1, 12 * 128, 12 * 2999, 12 * 3000):
        monkeypatch.setattr("lowland.geometry.pca._VALUES", values)
        columns = slice(None) if values > 1 else slice(0, 70)
        some = iterates[:, columns]
        assert_components(
            ll.Subspace.pca(some, rank=5), *(expected if values > 1 else by_svd(some, 5))
        )
    assert torch.get_num_threads() == threads


def layout_of(size=3000):
    return ll.ParamLayout(torch.nn.Linear(size, 1, bias=False))


def test_components_of_a_trajectory(tmp_path):
    layout, iterates = layout_of(), random_walk()
    model = torch.nn.Linear(3000, 1, bias=False)
    trajectory = ll.Trajectory.create(tmp_path / "run", layout)
    for step, w in enumerate(iterates):
        trajectory.append(layout.load_(model, w), step=step)
    expected = by_svd(iterates, 4)
    assert_components(ll.Subspace.pca(trajectory, rank=4), *expected)
    assert_components(trajectory.pca(rank=4), *expected)


def test_components_of_swag_are_those_of_its_deviations():
    swag = ll.SWAG(layout_of(), rank=8)
    iterates = random_walk()
    for w in iterates:
        swag.update(w)
    deviations = swag.deviations.double().numpy()
    _, s, vt = np.linalg.svd(deviations, full_matrices=False)
    rows = s[:3, None] * vt[:3] / math.sqrt(len(deviations) - 1)
    assert_components(ll.Subspace.pca(swag, rank=3), iterates.double().mean(0).numpy(), rows)


def test_more_components_than_there_are_is_an_error():
    iterates = random_walk(4)
    with pytest.raises(ll.ConfigError, match="rank: expected 1 to 3, which 4 iterates"):
        ll.Subspace.pca(iterates, rank=4)
    with pytest.raises(ll.ConfigError, match="rank: expected 1 to 3"):
        ll.Subspace.pca(iterates, rank=0)
    with pytest.raises(ll.DataError, match="at least two iterates, got 1"):
        ll.Subspace.pca(iterates[:1], rank=1)
    flat = iterates[:1] + torch.arange(4.0)[:, None] * iterates[1]
    with pytest.raises(ll.ConfigError, match=r"at most 1, .*span, got 2"):
        ll.Subspace.pca(flat.double(), rank=2)
    with pytest.raises(ll.DataError, match=r"expected a Trajectory, a SWAG, .* or iterates"):
        ll.Subspace.pca(3)
