"""The anchors of a shape while they are trained."""

import pytest
import torch

import lowland as ll
from lowland.train.anchors import Anchors, anchor_gram, sample_weights


@pytest.mark.parametrize("height", [1e-1, 1e-3, 1e-4])
def test_the_volume_of_a_slender_simplex_keeps_its_gradient(height):
    """Of a right triangle the gradient of the log volume by the top is 1 / height upwards."""
    g = torch.Generator().manual_seed(0)
    base = torch.randn(20_000, generator=g)
    along, up = torch.linalg.qr(torch.randn(20_000, 2, generator=g)).Q.T
    simplex = ll.Simplex([base, base + along, base + height * up])
    anchors = simplex.anchors.float()
    gram = anchor_gram(anchors, simplex).requires_grad_()
    (by,) = torch.autograd.grad(simplex.log_volume(gram), gram)
    top = ((by + by.mT) @ (anchors - anchors[0]).double())[2]
    assert float(top.norm()) * height == pytest.approx(1, abs=0.01)


def bezier():
    g = torch.Generator().manual_seed(0)
    return ll.Bezier.between(*torch.randn(2, 5, generator=g), bends=2)


def test_a_step_of_an_optimizer_writes_into_the_matrix_and_leaves_fixed_anchors():
    shape = bezier()
    anchors = Anchors(shape)
    with torch.no_grad():
        for parameter in anchors.parameters():
            parameter += 1
    expected = shape.anchors + torch.tensor([0.0, 1.0, 1.0, 0.0])[:, None]
    assert torch.equal(anchors.matrix, expected)
    assert torch.equal(anchors.current_shape().anchors, expected)
    assert not torch.equal(shape.anchors, expected)  # the shape itself stays


def test_parameters_with_new_data_are_attached_again():
    anchors = Anchors(bezier())
    anchors.free[0].data = torch.full((5,), 7.0)
    anchors.attach()
    assert torch.equal(anchors.matrix[1], torch.full((5,), 7.0))
    anchors.matrix[1] = 3.0
    assert torch.equal(anchors.free[0].detach(), torch.full((5,), 3.0))


def test_inner_products_are_relative_to_the_first_anchor(monkeypatch):
    monkeypatch.setattr("lowland.train.anchors.CHUNK", 3)  # several chunks
    shape = bezier()
    edges = (shape.anchors - shape.anchors[0]).double()
    torch.testing.assert_close(
        anchor_gram(shape.anchors, shape), edges @ edges.T, rtol=1e-6, atol=1e-6
    )


def test_weights_of_samples_average_to_one_over_the_length_of_a_curve():
    curve = bezier()
    assert sample_weights(curve, "coords") is None
    t = (torch.arange(4000, dtype=torch.float64)[:, None] + 0.5) / 4000
    weights = sample_weights(curve, "arc")(t, anchor_gram(curve.anchors, curve))
    assert float(weights.mean()) == pytest.approx(1, abs=1e-4)
    speed = (curve.slopes(t)[:, 0] @ curve.anchors.double()).norm(dim=1)
    torch.testing.assert_close(weights, speed / speed.mean(), rtol=1e-4, atol=1e-4)
