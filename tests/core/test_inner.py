"""Inner products against NumPy's in float64."""

import numpy as np
import pytest
import torch

from lowland.core.inner import inner
from tests.models import generator


def test_inner_products_are_accurate_for_near_vectors() -> None:
    a = torch.randn(3, 5000, generator=generator())
    b = a + 1e-3 * torch.randn(3, 5000, generator=generator(1))
    b = torch.cat([b, a[:1] * 1e4])
    expected = a.double().numpy() @ b.double().numpy().T
    products = inner(a, b)
    assert products.dtype == torch.float64
    np.testing.assert_allclose(products, expected, rtol=1e-13)
    # the squared distance of near vectors, from the Gram matrix: 1e-6 of the norms
    pair = torch.stack([a[0], a[0] + 1e-4 * a[1]])
    exact = float(((pair[1].double() - pair[0].double()) ** 2).sum())

    def distance(gram):
        return float(gram[0, 0] + gram[1, 1] - 2 * gram[0, 1])

    assert distance(inner(pair, pair)) == pytest.approx(exact, rel=1e-6)
    assert distance(pair @ pair.T) != pytest.approx(exact, rel=1e-2)  # broken twin: float32


def test_inner_has_the_shapes_of_its_arguments(monkeypatch) -> None:
    u, stack = torch.randn(12), torch.randn(4, 12)
    assert inner(u, u).shape == ()
    assert inner(stack, u).shape == (4,)
    assert inner(stack, torch.randn(2, 3, 12)).shape == (4, 2, 3)
    products_in_one_chunk = inner(stack, stack)
    monkeypatch.setattr("lowland.core.inner.CHUNK", 20)  # five columns at a time
    torch.testing.assert_close(inner(stack, stack), products_in_one_chunk)


def test_an_origin_far_away_costs_no_digits() -> None:
    origin = 1e6 + torch.randn(500, generator=generator())
    apart = torch.randn(3, 500, generator=generator(1)).round(decimals=1)
    points = origin + apart
    exact = points.double() - origin.double()
    torch.testing.assert_close(inner(points, points, origin=origin), exact @ exact.T)
