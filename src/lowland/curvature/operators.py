"""Leading eigenvectors of the Hessian and of the Gauss-Newton matrix of a loss surface.

Products with vectors are torch's own: curvature libraries take a module, a list of its parameters
and (input, target) pairs, which leaves no room for batches of names, tied or computed weights,
buffers of a point, and likelihoods of one's own. All derivatives are by reverse mode, which more
operators have than forward mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from lowland import checks
from lowland.core.point import Point
from lowland.core.seeds import stream
from lowland.errors import ConfigError, LowlandError, NonFiniteError
from lowland.progress import Progress, reporting

if TYPE_CHECKING:
    from lowland.core.surface import LossSurface

KINDS = ("hessian", "ggn")
SCALES = ("unit", "laplace")
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}  # of eigenvalues, as products are rounded


def leading(
    surface: LossSurface,
    w: Tensor | Point,
    *,
    rank: int,
    kind: str,
    scale: str,
    seed: int,
    loader: Iterable[Any] | None = None,
    progress: Progress = False,
) -> tuple[Point, Tensor, Tensor]:
    """The point, directions (rank, P) and eigenvalues (rank,), largest first: `Subspace.hessian`.

    The arguments are explained there.
    """
    checks.choice("scale", scale, SCALES)
    point = surface.point(w)
    size = surface.layout.size
    rank = checks.whole(
        "rank", rank, least=1, most=size - 1, hint="Lanczos' method gives no full spectrum"
    )
    seed = checks.seed(seed)
    examples = surface.replayable(loader)
    times = curvature(surface, point, kind=kind, loader=examples)
    done = 0
    with reporting(progress, f"{kind} products") as report:

        def counted(v: Tensor) -> Tensor:
            nonlocal done
            product = times(v)
            done += 1
            report(done, None)
            return product

        values, vectors = _eigen(counted, size, rank, seed, point.weights)
        report(done, done)  # how many Lanczos' method takes is known now
    basis = vectors.T.to(point.weights)
    if scale == "laplace":
        if float(values[-1]) <= 0:
            raise ConfigError(
                f"scale='laplace': eigenvalue {rank} is {float(values[-1]):.3g}, and the loss does "
                "not curve upwards there; lower the rank, train to a minimum, or take kind='ggn'."
            )
        basis = basis / (examples.counted_items * values).sqrt()[:, None].to(basis)
    return point, basis, values


def curvature(
    surface: LossSurface,
    w: Tensor | Point,
    *,
    kind: str = "hessian",
    loader: Iterable[Any] | None = None,
) -> Callable[[Tensor], Tensor]:
    """The function v -> H v, both (P,), of the Hessian or the Gauss-Newton matrix of L at w.

    L is over the examples of `loader`, or over the surface's.

    Raises:
        ConfigError: an unknown kind. NonFiniteError: a loss that is NaN or infinite.
    """
    checks.choice("kind", kind, KINDS)
    point = surface.point(w)
    buffers = surface.buffers_for(point)
    examples = surface.replayable(loader)
    data = examples.cached()
    value = float(surface(Point(point.weights, buffers), loader=data, batchnorm="frozen"))
    if not math.isfinite(value):
        raise NonFiniteError(
            f"the loss at these weights is {value}: it has no curvature; take weights of a run "
            "that converged."
        )
    items = data.counted_items
    examples.num_examples, examples.items = data.num_examples, items
    product = _hessian if kind == "hessian" else _gauss_newton

    def times(v: Tensor) -> Tensor:
        v = v.to(point.weights)
        total = torch.zeros(len(v), dtype=torch.float64, device=v.device)
        for batch in data:
            args, kwargs, target = surface.labelled(batch)
            # fused attention has no second derivative
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), PlainWeightNorm():
                leaf = point.weights.detach().clone().requires_grad_()
                parameters = surface.layout.materialise(leaf)
                vectors = surface.template.spectral_vectors(
                    parameters, buffers, differentiable=kind == "hessian"
                )
                output = surface.forward(parameters, {**buffers, **vectors}, args, kwargs)
                total += product(leaf, output, lambda f: _sum(surface, f, target), v)  # noqa: B023
        return total / items

    return times


class PlainWeightNorm(TorchFunctionMode):
    """weight_norm by differentiable parts: the second derivative of torch's fused operator leaves
    out that of the norm (torch 2.13), and is wrong without a word."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._weight_norm:
            v, g, dim = args
            return v * (g / torch.norm_except_dim(v, 2, dim))
        return func(*args, **(kwargs or {}))


def _sum(surface: LossSurface, output: Tensor, target: Any) -> Tensor:
    return surface.task.items_nll(output, target).sum()


def _hessian(leaf: Tensor, output: Tensor, loss: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
    gradient = _grad(loss(output), leaf)
    return _grad(gradient @ v, leaf, last=True)


def _gauss_newton(
    leaf: Tensor, output: Tensor, loss: Callable[[Tensor], Tensor], v: Tensor
) -> Tensor:
    # J v by reverse mode twice: u -> J^T u is linear, and its transpose is J
    u = torch.zeros_like(output).requires_grad_()
    back = _grad(output, leaf, u)
    along = _grad(back @ v, u, last=True)
    alone = output.detach().requires_grad_()
    curved = _grad((_grad(loss(alone), alone) * along).sum(), alone, last=True)
    return _grad(output, leaf, curved, last=True)


def _grad(
    value: Tensor, by: Tensor, weights: Tensor | None = None, *, last: bool = False
) -> Tensor:
    """The gradient; zero where the value does not depend on `by`, or no longer does."""
    if not value.requires_grad:
        return torch.zeros_like(by)
    (product,) = torch.autograd.grad(
        value, by, weights, create_graph=not last, retain_graph=True, materialize_grads=True
    )
    return product


def _eigen(
    times: Callable[[Tensor], Tensor], size: int, rank: int, seed: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues (rank,) and their vectors (P, rank), float64."""
    linalg = need_scipy()
    generator = stream("lanczos", seed)
    start = torch.randn(size, generator=generator, dtype=torch.float64).numpy()

    def product(v: Any) -> Any:
        return times(torch.from_numpy(v.reshape(-1).copy())).cpu().numpy()

    operator = linalg.LinearOperator((size, size), matvec=product, dtype="float64")
    try:
        values, vectors = linalg.eigsh(
            operator, k=rank, which="LA", v0=start, tol=_TOLERANCE.get(like.dtype, 1e-5)
        )
    except linalg.ArpackError as error:  # no convergence is one of them, a matrix of zeros another
        raise LowlandError(
            f"the {rank} largest eigenvalues did not converge ({error}); lower the rank, or move "
            "the model to float64."
        ) from error
    values, vectors = values[::-1].copy(), vectors[:, ::-1].copy()
    return torch.from_numpy(values).to(like.device), torch.from_numpy(vectors).to(like.device)


def need_scipy() -> Any:
    """The library of Lanczos' method.

    Raises:
        LowlandError: where it is not installed.
    """
    purpose = "Lanczos' method for eigenvectors of the Hessian"
    return checks.package("scipy.sparse.linalg", extra="curvature", purpose=purpose)
