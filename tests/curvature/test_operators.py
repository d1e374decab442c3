"""Curvature operators, and subspaces of their eigenvectors, against exact matrices in float64."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import lowland as ll
from lowland.curvature.operators import CurvatureOperator
from lowland.curvature.products import METHODS
from tests.models import CASES, blobs, conv_bn, generator, images, mlp, tokens

KINDS = ("hessian", "ggn")


def dense(surface, w, kind):
    """The matrix itself, over all examples."""
    buffers = surface.refresh(w)
    total = 0
    for batch in surface.data:
        args, kwargs, target = surface.labelled(batch)

        def outputs(w, args=args, kwargs=kwargs):
            return surface.forward(surface.layout.materialise(w), buffers, args, kwargs)

        def loss(output, target=target):
            return surface.task.items_nll(output, target).sum()

        if kind == "hessian":
            # torch.func's is wrong for the weight of LayerNorm (2.13)
            part = torch.autograd.functional.hessian(
                lambda w, f=outputs, c=loss: c(f(w)), w, vectorize=True
            )
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
    ours = CurvatureOperator(surface, w, kind=kind)
    for seed in range(3):
        v = torch.randn(len(w), generator=torch.Generator().manual_seed(seed), dtype=w.dtype)
        expected = torch.as_tensor(theirs @ v)
        torch.testing.assert_close(ours @ v, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name != "compiled"], ids=lambda case: case.name
)
def test_any_model_has_a_curvature(case):
    """By a central difference of the gradient, which knows nothing of second derivatives."""
    surface = case.surface()
    w = surface.layout.flatten(case.model())
    if case.name == "mixed":
        assert torch.isfinite(CurvatureOperator(surface, w) @ torch.ones_like(w)).all()
        return
    v = torch.randn(len(w), generator=generator(1), dtype=w.dtype)
    v /= v.norm()
    at = ll.Point(w, surface.refresh(w) or None)
    step = 2e-3
    up, down = (
        surface.value_and_grad(ll.Point(w + s * v, at.buffers), batchnorm="frozen")[1].double()
        for s in (step, -step)
    )
    expected = (up - down) / (2 * step)
    result = CurvatureOperator(surface, w) @ v
    assert float((result - expected).norm()) < 2e-2 * float(expected.norm())
    assert torch.isfinite(CurvatureOperator(surface, w, kind="ggn") @ v).all()


def test_the_loss_and_its_gradient_are_those_of_the_surface():
    _, surface, w = small()
    matrix = CurvatureOperator(surface, w)
    value, gradient = surface.value_and_grad(w)
    assert matrix.loss == pytest.approx(float(value), rel=1e-12)
    torch.testing.assert_close(matrix.gradient, gradient)
    assert matrix.batchnorm == "none"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", ["attention", "conv_bn", "mlp", "tied"])
def test_both_methods_give_the_dense_matrix(kind, method, build):
    surface, w = double_case(build)
    matrix = CurvatureOperator(surface, w, kind=kind, method=method)
    with sdpa_kernel(SDPBackend.MATH):  # torch.func has no rule for the fused one
        expected = dense(surface, w, kind)
    vectors = torch.randn(len(w), 3, generator=generator(2), dtype=torch.float64)
    torch.testing.assert_close(matrix @ vectors, expected @ vectors, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(
        matrix @ vectors[:, 0], expected @ vectors[:, 0], rtol=1e-8, atol=1e-10
    )
    torch.testing.assert_close(matrix.restricted(vectors.T), vectors.T @ expected @ vectors)
    assert matrix.products == 7
    assert matrix.method == method


def double_case(name):
    """A surface in float64, and weights that are no minimum."""
    model, task, batches = {
        "attention": (Attention, ll.LanguageModeling, lambda: tokens((4, 3))),  # batches are dicts
        "conv_bn": (conv_bn, ll.Classification, lambda: double(images((6, 3)))),
        "mlp": (lambda: mlp(hidden=4), ll.Classification, lambda: double(blobs())),
        "tied": (Tied, ll.Classification, lambda: double(blobs(features=4, classes=4))),
    }[name]
    torch.manual_seed(0)
    net = model().double()
    surface = ll.LossSurface(net, task(), batches())
    return surface, 1.1 * surface.layout.flatten(net)


class Attention(nn.Module):
    """Tied embeddings and fused attention, on batches of names."""

    def __init__(self, words=11, width=4):
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, input_ids, attention_mask):
        x = self.norm(self.embedding(input_ids))[:, None]
        x = nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)[:, 0]
        return x @ self.embedding.weight.T


class Tied(nn.Module):
    """One layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = self.first

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def item_gradients(surface, w):
    """(n, P), the gradient of each item's loss."""
    buffers = surface.refresh(w)
    rows = []
    for batch in surface.data:
        args, kwargs, target = surface.labelled(batch)

        def losses(w, args=args, kwargs=kwargs, target=target):
            output = surface.forward(surface.layout.materialise(w), buffers, args, kwargs)
            return surface.task.items_nll(output, target)

        rows.append(torch.func.jacrev(losses)(w))
    return torch.cat(rows)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("build", ["attention", "conv_bn"])
def test_the_empirical_fisher_is_the_second_moment_of_gradients(build, method):
    surface, w = double_case(build)
    with sdpa_kernel(SDPBackend.MATH):
        gradients = item_gradients(surface, w)
    gradients = gradients[gradients.abs().sum(1) > 0]  # tokens that are not to be predicted: none
    surface(w)
    matrix = CurvatureOperator(surface, w, kind="empirical_fisher", method=method)
    expected = gradients.T @ gradients / surface.data.items
    torch.testing.assert_close(matrix @ torch.eye(len(w)).double(), expected)


@pytest.mark.parametrize("build", ["conv_bn", "mlp"])
def test_the_fisher_of_a_classifier_tends_to_its_gauss_newton_matrix(build):
    surface, w = double_case(build)
    vectors = torch.eye(len(w)).double()[:, -6:]
    exact = CurvatureOperator(surface, w, kind="ggn") @ vectors

    def error(samples, kind="fisher"):
        matrix = CurvatureOperator(surface, w, kind=kind, samples=samples)
        return float((matrix @ vectors - exact).norm() / exact.norm())

    assert error(100) < 0.15
    assert error(100) < error(1) / 3
    assert error(1, "empirical_fisher") > 0.2  # the broken twin: targets as they are


def test_the_fisher_is_one_matrix_and_depends_on_its_seed():
    surface, w = double_case("mlp")
    v = torch.ones_like(w)
    matrix = CurvatureOperator(surface, w, kind="fisher")
    first = matrix @ v
    assert torch.equal(first, matrix @ v)
    assert not torch.allclose(
        first, CurvatureOperator(surface, w, kind="fisher", seed=1) @ v, rtol=1e-3
    )
    both = torch.stack([v, v.flip(0)], 1)
    torch.testing.assert_close(both.T @ (matrix @ both), (matrix @ both).T @ both)


def test_chunks_change_nothing_but_memory():
    surface, w = double_case("conv_bn")
    v = torch.ones_like(w)
    whole, parts = (CurvatureOperator(surface, w, chunk=size) @ v for size in (512, 2))
    torch.testing.assert_close(whole, parts, rtol=1e-10, atol=1e-12)


def test_the_policy_of_batchnorm_is_recorded_and_matters():
    surface, w = double_case("conv_bn")
    v = torch.ones_like(w)
    fresh, stale = (
        CurvatureOperator(surface, w, batchnorm=policy) for policy in ("refresh", "frozen")
    )
    assert (fresh.batchnorm, stale.batchnorm) == ("refresh", "frozen")
    assert not torch.allclose(fresh @ v, stale @ v, rtol=1e-3)


def test_the_method_is_chosen_by_time_among_those_that_agree():
    surface, w = double_case("mlp")
    matrix = CurvatureOperator(surface, w)
    assert matrix.timings.keys() == set(METHODS)
    assert matrix.timings[matrix.method] == min(matrix.timings.values())

    class Wrong(torch.autograd.Function):
        """Its tangent is not that of its gradient."""

        @staticmethod
        def forward(x):
            return x.tanh()

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(output)
            ctx.save_for_forward(output)

        @staticmethod
        def backward(ctx, gradient):
            return gradient * (1 - ctx.saved_tensors[0] ** 2)

        @staticmethod
        def jvp(ctx, tangent):
            return 2 * tangent * (1 - ctx.saved_tensors[0] ** 2)

    matrix = CurvatureOperator(*with_activation(Wrong.apply))
    assert (matrix.method, list(matrix.timings)) == ("double_backward", ["double_backward"])


def with_activation(function):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(6, 3)

        def forward(self, x):
            return function(self.net(x))

    torch.manual_seed(0)
    net = Net().double()
    surface = ll.LossSurface(net, ll.Classification(), double(blobs()))
    return surface, surface.layout.flatten(net)


@pytest.mark.parametrize("method", [None, "double_backward"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_a_second_derivative_is_refused(kind, method):
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.tanh()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            return gradient

    with pytest.raises(ll.ConfigError, match=r"Net has no second derivative .*once_differentiable"):
        CurvatureOperator(*with_activation(Once.apply), kind=kind, method=method)


def test_bad_input_is_refused():
    _, surface, w = small()
    matrix = CurvatureOperator(surface, w)
    with pytest.raises(ll.LayoutError, match=rf"expected a vector \({len(w)},\) or columns"):
        matrix @ w[:-1]
    with pytest.raises(ll.LayoutError, match="basis: expected directions"):
        matrix.restricted(torch.ones(2, 3))
    with pytest.raises(ll.ConfigError, match="method: expected one of"):
        CurvatureOperator(surface, w, method="finite")
    loader = torch.utils.data.DataLoader(blobs((5,))[0][0], batch_size=8, drop_last=True)
    with pytest.raises(ll.DataError, match="the loader is empty"):
        CurvatureOperator(surface, w, loader=loader)
    normalised = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    empty = ll.LossSurface(normalised, ll.Classification(), loader)
    with pytest.raises(ll.DataError, match="the loader is empty"):
        CurvatureOperator(empty, empty.layout.flatten(normalised))


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
    for rank in (0, len(w) + 1):
        with pytest.raises(ll.ConfigError, match=rf"rank: .* from 1 to {len(w)}, got {rank}"):
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
