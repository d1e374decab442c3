"""Subspaces of the curvature, against exact Hessians in float64, curvlinops and closed forms."""

import math
import warnings

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.curvature.operators import curvature
from tests.models import CASES, blobs, conv_bn, images, mlp

KINDS = ("hessian", "ggn")


def dense(surface, w, kind):
    """The matrix itself, by torch.func over all rows."""
    buffers = surface.refresh(w)
    total = 0
    for batch in surface.data:
        args, kwargs, target = surface.labelled(batch)

        def outputs(w, args=args, kwargs=kwargs):
            return surface.forward(surface.layout.materialise(w), buffers, args, kwargs)

        def loss(output, target=target):
            return surface.task.items_nll(output, target).sum()

        if kind == "hessian":
            part = torch.func.hessian(lambda w, f=outputs, c=loss: c(f(w)))(w)
        else:
            f = outputs(w)
            jacobian = torch.func.jacrev(outputs)(w).reshape(f.numel(), -1)
            inner = torch.func.hessian(loss)(f).reshape(f.numel(), f.numel())
            part = jacobian.T @ inner @ jacobian
        total = total + part
    surface(w)
    return total / surface.data.items


def double(batches):
    return [(x.double(), y) for x, y in batches]


def small(**options):
    torch.manual_seed(0)
    model = mlp(hidden=4).double()
    surface = ll.LossSurface(model, ll.Classification(), double(blobs()), **options)
    return model, surface, surface.layout.flatten(model)


def assert_leading(sub, matrix, tolerance=1e-4):
    values, vectors = torch.linalg.eigh(matrix)
    values, vectors = values.flip(0), vectors.flip(1).T
    torch.testing.assert_close(sub.eigenvalues, values[: sub.k], rtol=tolerance, atol=1e-6)
    for i, row in enumerate(sub.basis.double()):
        assert abs(float(row @ vectors[i])) == pytest.approx(1, abs=tolerance**2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", [None, r"^2\."])
def test_leading_eigenvectors_are_those_of_the_exact_matrix(kind, where):
    _, surface, w = small(where=where)
    sub = ll.Subspace.hessian(surface, w, rank=4, kind=kind)
    assert_leading(sub, dense(surface, w, kind))
    assert torch.equal(sub.center, w)
    gram = sub.basis @ sub.basis.T
    torch.testing.assert_close(gram, torch.eye(4).double(), rtol=0, atol=1e-8)


def test_the_two_matrices_differ_and_so_does_a_mean_of_batch_means():
    _, surface, w = small()
    hessian, ggn = (dense(surface, w, kind) for kind in KINDS)
    assert float((hessian - ggn).norm() / ggn.norm()) > 1e-2
    halves = [
        ll.LossSurface(mlp(hidden=4).double(), ll.Classification(), [b]) for b in surface.data
    ]
    twin = sum(dense(one, w, "hessian") for one in halves) / len(halves)  # the last batch is short
    with pytest.raises(AssertionError):
        assert_leading(ll.Subspace.hessian(surface, w, rank=4), twin)


@pytest.mark.parametrize("kind", KINDS)
def test_batchnorm_is_held_at_the_statistics_of_w(kind):
    torch.manual_seed(0)
    model = conv_bn().double()
    surface = ll.LossSurface(model, ll.Classification(), double(images()))
    w = surface.layout.flatten(model) * 1.1
    sub = ll.Subspace.hessian(surface, w, rank=3, kind=kind)
    assert_leading(sub, dense(surface, w, kind))
    stale = ll.Subspace.hessian(surface, ll.Point(w, surface.buffers), rank=3, kind=kind)
    torch.testing.assert_close(stale.eigenvalues, sub.eigenvalues)


def test_float32_finds_the_same_directions():
    model, surface, w = small()
    expected = ll.Subspace.hessian(surface, w, rank=2)
    narrow = ll.LossSurface(model.float(), ll.Classification(), blobs())
    result = ll.Subspace.hessian(narrow, w.float(), rank=2)
    assert result.basis.dtype == torch.float32
    torch.testing.assert_close(result.eigenvalues, expected.eigenvalues, rtol=1e-3, atol=1e-5)
    overlap = (result.basis.double() * expected.basis).sum(1).abs()
    assert float(overlap.min()) > 1 - 1e-4


def regression(n=40, noise=0.25, batches=2):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 5, generator=g, dtype=torch.float64) * torch.arange(5, 0, -1.0).double()
    net = nn.Linear(5, 1, bias=False, dtype=torch.float64)
    y = torch.randn(n, 1, generator=g, dtype=torch.float64)
    data = [(x[:30], y[:30]), (x[30:], y[30:])][:batches]
    surface = ll.LossSurface(net, ll.Regression(noise_variance=noise), data)
    return surface, x.T @ x / n / noise


@pytest.mark.parametrize("kind", KINDS)
def test_linear_regression_has_its_second_moments(kind):
    surface, expected = regression()
    for w in (torch.zeros(5).double(), torch.ones(5).double()):
        assert_leading(ll.Subspace.hessian(surface, w, rank=3, kind=kind), expected, 1e-6)


def test_laplace_scales_are_standard_deviations_of_the_posterior():
    surface, matrix = regression()
    w = torch.zeros(5).double()
    sub = ll.Subspace.hessian(surface, w, rank=4, scale="laplace")
    covariance = torch.linalg.inv(40 * matrix)
    unit = sub.basis / sub.basis.norm(dim=1, keepdim=True)
    torch.testing.assert_close((sub.basis**2).sum(1), (unit @ covariance * unit).sum(1))


def test_other_examples_have_a_curvature_of_their_own():
    surface, whole = regression()
    other, _ = regression(batches=1)  # the first 30 of the 40 rows
    part = other.data.loader
    w, calls = torch.zeros(5).double(), []
    options = {"rank": 4, "scale": "laplace"}
    expected = ll.Subspace.hessian(other, w, **options)
    result = ll.Subspace.hessian(
        surface, w, loader=part, progress=lambda *now: calls.append(now), **options
    )
    assert torch.equal(result.basis, expected.basis)
    with pytest.raises(AssertionError):
        assert_leading(ll.Subspace.hessian(surface, w, rank=4, loader=part), whole, 1e-6)
    n = len(calls) - 1
    assert calls == [*((done + 1, None) for done in range(n)), (n, n)]


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_those_of_curvlinops(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own parts
        import curvlinops
    model, surface, w = small()
    surface.layout.load_(model, w)
    operators = {
        "hessian": curvlinops.HessianLinearOperator,
        "ggn": curvlinops.GGNLinearOperator,
    }
    theirs = operators[kind](
        model.eval(),
        nn.CrossEntropyLoss(reduction="mean"),
        list(model.parameters()),
        double(blobs()),
        check_deterministic=False,
    )
    ours = curvature(surface, w, kind=kind)
    for seed in range(3):
        v = torch.randn(len(w), generator=torch.Generator().manual_seed(seed), dtype=w.dtype)
        expected = torch.as_tensor(theirs @ v)
        torch.testing.assert_close(ours(v), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name != "compiled"], ids=lambda case: case.name
)
def test_any_model_has_a_curvature(case):
    """By a central difference of the gradient, which knows nothing of second derivatives."""
    surface = case.surface()
    w = surface.layout.flatten(case.model())
    if case.name == "mixed":
        assert torch.isfinite(curvature(surface, w)(torch.ones_like(w))).all()
        return
    v = torch.randn(len(w), generator=torch.Generator().manual_seed(1), dtype=w.dtype)
    v /= v.norm()
    at = ll.Point(w, surface.refresh(w) or None)
    step = 2e-3
    up, down = (
        surface.value_and_grad(ll.Point(w + s * v, at.buffers), batchnorm="frozen")[1].double()
        for s in (step, -step)
    )
    expected = (up - down) / (2 * step)
    result = curvature(surface, w)(v)
    assert float((result - expected).norm()) < 2e-2 * float(expected.norm())
    assert torch.isfinite(curvature(surface, w, kind="ggn")(v)).all()


def test_torchs_fused_weight_norm_has_a_wrong_second_derivative():
    """What the products avoid; once this fails, they need not any more."""
    g = torch.Generator().manual_seed(0)
    v, size = (torch.randn(3, n, generator=g, dtype=torch.float64) for n in (4, 1))
    x = torch.randn(3, 4, generator=g, dtype=torch.float64)

    def fused(v):
        return (torch._weight_norm(v, size, 0) * x).sin().sum()

    def parts(v):
        return (v * (size / v.norm(dim=1, keepdim=True)) * x).sin().sum()

    theirs, ours = (torch.autograd.functional.hessian(f, v) for f in (fused, parts))
    gradients = (torch.autograd.functional.jacobian(f, v) for f in (fused, parts))
    torch.testing.assert_close(*gradients)
    assert float((theirs - ours).norm() / ours.norm()) > 0.05


def test_it_is_seeded_and_saved(tmp_path):
    _, surface, w = small()
    sub = ll.Subspace.hessian(surface, w, rank=2)
    assert torch.equal(sub.basis, ll.Subspace.hessian(surface, w, rank=2).basis)
    other = ll.Subspace.hessian(surface, w, rank=2, seed=1)
    torch.testing.assert_close((other.basis * sub.basis).sum(1).abs(), torch.ones(2).double())
    sub.save(tmp_path / "sub.safetensors")
    again = ll.Shape.load(tmp_path / "sub.safetensors")
    assert torch.equal(again.eigenvalues, sub.eigenvalues)
    assert again.explained_variance_ratio is None


def test_what_has_no_leading_directions_is_refused():
    _, surface, w = small()
    for rank in (0, len(w)):
        with pytest.raises(
            ll.ConfigError, match=rf"rank: .* from 1 to {len(w) - 1}, got {rank}; Lanczos"
        ):
            ll.Subspace.hessian(surface, w, rank=rank)
    with pytest.raises(ll.ConfigError, match="kind: expected one of hessian, ggn"):
        ll.Subspace.hessian(surface, w, kind="fisher")
    with pytest.raises(ll.ConfigError, match="scale: expected one of unit, laplace"):
        ll.Subspace.hessian(surface, w, scale="long")
    with pytest.raises(ll.NonFiniteError, match="loss at these weights is"):
        ll.Subspace.hessian(surface, w * 1e308, rank=2)
    with pytest.raises(ll.NonFiniteError, match="hold NaN"):
        ll.Subspace.hessian(surface, w * math.nan)
    with pytest.raises(ll.ConfigError, match="does not curve upwards"):
        ll.Subspace.hessian(surface, w, rank=len(w) - 1, scale="laplace")
