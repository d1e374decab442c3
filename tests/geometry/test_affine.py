"""What flat shapes share: orthonormal directions, and coordinates by least squares."""

import torch

import lowland as ll
from lowland.core.inner import inner
from lowland.geometry import affine
from lowland.geometry.affine import orthonormal
from tests.geometry.contract import generator, vectors


def test_orthonormal_rows_of_nearly_parallel_vectors():
    """Twice through float64: once, what is left of long vectors is no longer orthogonal."""
    a, b = vectors(2, size=5000)
    rows = orthonormal(torch.stack([1e3 * a, 1e3 * a + b]))
    assert abs(float(rows[0].double() @ rows[1].double())) < 1e-6


def test_coordinates_of_directions_that_are_far_from_orthogonal():
    w, a, b = vectors(3, torch.float64)
    sub = ll.Subspace(w, torch.stack([a, a + 1e-3 * b]))
    coords = torch.randn(4, 2, generator=generator(), dtype=torch.float64)
    result, far = sub.coords_of(sub(coords))
    torch.testing.assert_close(result, coords, rtol=1e-6, atol=1e-6)
    assert float(far.max()) < 1e-9


def test_the_directions_gram_matrix_is_computed_once(monkeypatch, tmp_path):
    w, a, b = vectors(3, torch.float64)
    sub = ll.Subspace(w, torch.stack([a, b]))
    calls = []
    monkeypatch.setattr(affine, "inner", lambda *args: calls.append(args) or inner(*args))
    coords = torch.randn(3, 2, generator=generator(), dtype=torch.float64)
    for number in range(2):
        torch.testing.assert_close(sub.coords_of(sub(coords))[0], coords)
        assert len(calls) == 1 + 3 * 3 * (number + 1)
    sub.save(tmp_path / "subspace.safetensors")  # which holds no Gram matrix
    assert torch.equal(ll.Subspace.load(tmp_path / "subspace.safetensors").basis, sub.basis)
    # other directions have another one
    twice = sub.with_anchors(2 * sub.anchors)
    torch.testing.assert_close(twice.coords_of(twice(coords))[0], coords)


def test_orthonormal_leaves_its_argument_as_it_was():
    anchors = torch.tensor([[3.0, 0, 0], [1.0, 2.0, 0]])
    rows = orthonormal(anchors)
    assert torch.equal(rows, torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]))
    assert torch.equal(anchors, torch.tensor([[3.0, 0, 0], [1.0, 2.0, 0]]))
