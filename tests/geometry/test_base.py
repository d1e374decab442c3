"""What all shapes share: weights keep their bits where matrix products may be rounded."""

import pytest
import torch

import lowland as ll
from tests.geometry.contract import generator, vectors


@pytest.fixture
def roughly():
    """Lets products on the CPU be rounded to bfloat16, as training in float32 often does."""
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    yield
    torch.backends.mkldnn.matmul.fp32_precision = before


def wide():
    """Subspaces of many directions: products of few are not handed to the library that rounds."""
    center, *basis = vectors(40, size=20000)
    return ll.Subspace(center, torch.stack(basis))


def really() -> bool:
    """Whether this processor rounds them: one without units for it may not."""
    square = torch.randn(512, 512, generator=generator())
    return float((square @ square - (square.double() @ square.double())).abs().max()) > 1e-2


def test_weights_keep_their_bits(roughly):
    sub = wide()
    for n in (1, 8):
        z = torch.randn(n, sub.k, generator=generator(), dtype=torch.float64)
        exact = sub.center.double() + z @ sub.basis.double()
        torch.testing.assert_close(sub(z).double(), exact, rtol=1e-5, atol=1e-5)
        twin = sub.center + z.float() @ sub.basis  # the broken twin
        if really():
            assert float((twin - exact).abs().max()) > 1e-3
    result, far = sub.coords_of(sub(z))
    torch.testing.assert_close(result, z, rtol=0, atol=1e-5)
    assert float(far.max()) < 1e-3


def test_derivatives_and_gradients_keep_theirs(roughly):
    sub, z = wide(), torch.zeros(2, 39)
    assert torch.equal(sub.derivative(z), sub.basis.expand(2, -1, -1))
    leaf = sub.anchors.clone().requires_grad_()
    direction = vectors(1, size=20000, seed=5)[0]
    w = sub.with_anchors(leaf)(torch.full((1, 39), 0.3))[0]
    (result,) = torch.autograd.grad((w * direction).sum(), leaf)
    expected = torch.cat([torch.ones(1), torch.full((39,), 0.3)])[:, None] * direction
    torch.testing.assert_close(result, expected)


def test_any_way_of_allowing_it_is_seen():
    from lowland.geometry.base import rounds_matmul

    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    before = torch.get_float32_matmul_precision()
    seen = {}
    try:
        for word in ("medium", "high", "highest"):
            torch.set_float32_matmul_precision(word)
            seen[word] = rounds_matmul(cpu), rounds_matmul(gpu)
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen["highest"] == (False, False)
    assert seen["medium"] == (True, True)
    assert seen["high"][1]
