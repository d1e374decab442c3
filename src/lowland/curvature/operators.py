"""The Hessian, Gauss-Newton and Fisher matrices of a loss surface, as products with vectors.

Curvature libraries take a module, a list of its parameters and (input, target) pairs, which leaves
no room for batches of names, tied or computed weights, buffers of a point, and likelihoods of one's
own. So the products are torch's derivatives of the surface itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypedDict

import torch
from torch import Tensor

from lowland import checks
from lowland.core import LossSurface
from lowland.core.call import check_batch
from lowland.core.inner import inner
from lowland.core.point import Point
from lowland.core.seeds import stream
from lowland.curvature.derivatives import (
    PlainWeightNorm,
    differentiable_operators,
    require_second_derivative,
)
from lowland.curvature.products import METHODS, BatchLoss, gauss_newton, hessian
from lowland.curvature.target_samples import sample_targets
from lowland.errors import ConfigError, LayoutError, NonFiniteError
from lowland.evaluate.rebatch import slices

KINDS = ("hessian", "ggn", "fisher", "empirical_fisher")
CHUNK = 512  # examples: the graph of more takes memory, and no less time each
_TIMED = 256  # examples that methods are timed on
_TOLERANCE = 1e-3  # relative: products by two methods in float32 differ by less


class CurvatureKeywords(TypedDict, total=False):
    """The keyword arguments of `CurvatureOperator` that `ll.spectrum` hands on."""

    loader: Iterable[Any] | None
    batchnorm: str | None
    method: str | None
    chunk: int
    samples: int


class CurvatureOperator:
    r"""A (P, P) matrix of second derivatives of L at w, as products `operator @ v`.

    L is the mean over items, as in `surface(w)`: its examples, evaluation mode, the BatchNorm
    statistics of w held fixed. With f the outputs of an item, J their Jacobian by w, and g the
    gradient of an item's loss:

    - "hessian": \(\nabla^2 L(w)\);
    - "ggn", generalised Gauss-Newton: \(\frac1n \sum_i J_i^T (\nabla_f^2 {-\log p}(y_i|f_i)) J_i\),
      for losses that are convex in the outputs positive semi-definite;
    - "fisher": \(\frac1n \sum_i \mathrm{E}_{y \sim p(y|f_i)}\, g_i g_i^T\), each expectation by
      `samples` targets drawn from the model's own likelihood. Of classifiers and of regression
      with a fixed variance the exact expectation is the Gauss-Newton matrix;
    - "empirical_fisher": \(\frac1n \sum_i g_i g_i^T\) with the given targets.

    A product is a pass over the examples, summed in float64. P x P is never formed.

    Args:
        surface, w: the function and the point. kind: see above.
        loader: other examples than the surface's. batchnorm: as for `surface(w)`.
        method: "double_backward" or "forward", see `products`. None: the one that takes less time
            for a vector, by timing both on one batch; "forward" must give the same product. Several
            vectors at once then go by "double_backward", where they share one graph.
        chunk: examples whose graph is held at a time, which bounds the memory.
        samples, seed: targets an item for "fisher", and their seed.

    Attributes:
        items, checksum: how many items L is a mean over, and a checksum of the examples.
        loss: L(w). gradient: (P,) float64, of L with the statistics held fixed.
        products: vectors multiplied so far. seconds: of these products.
        method: as above. timings: seconds of a vector and batch by each method that was timed.
        batchnorm: "refresh", "frozen", or "none" for models without such layers.

    Raises:
        ConfigError: an unknown option; a model without the derivatives; targets that cannot be
            drawn. DataError: an empty loader. NonFiniteError: a loss that is NaN or infinite.
        LayoutError: vectors of another length.

    >>> from lowland.core import Regression
    >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), [(x, torch.zeros(2, 1))])
    >>> CurvatureOperator(surface, torch.zeros(2)) @ torch.eye(2)  # x^T x / n
    tensor([[2.0000, 0.0000],
            [0.0000, 0.5000]], dtype=torch.float64)
    """

    def __init__(
        self,
        surface: LossSurface,
        w: Tensor | Point,
        *,
        kind: str = "hessian",
        loader: Iterable[Any] | None = None,
        batchnorm: str | None = None,
        method: str | None = None,
        chunk: int = CHUNK,
        samples: int = 1,
        seed: int = 0,
    ) -> None:
        checks.choice("kind", kind, KINDS)
        checks.choice("method", method, (None, *METHODS))
        self.kind, self.surface = kind, surface
        self.chunk = checks.whole("chunk", chunk, least=1)
        self.samples = checks.whole("samples", samples, least=1)
        self.seed = checks.seed(seed)
        options = surface.options.override(batchnorm=batchnorm)
        examples = surface.replayable(loader)
        self.point = surface.point(w)
        refreshes = surface.refreshes(self.point, options)
        if refreshes:
            examples.first()  # an empty loader is an error of its own, and not one of BatchNorm
        policy = "refresh" if refreshes else "frozen"
        self.batchnorm = policy if surface.has_batchnorm else "none"
        self._buffers = surface.buffers_for(self.point, options)
        self._data = examples.cached()
        self._draws: dict[int, list[Tensor]] = {}  # targets for "fisher", by number of a part
        self._weight_norm = True  # whether the model has any; known after a pass
        self.products = 0
        self.seconds = 0.0
        self.loss, self.gradient = self._loss_and_gradient()
        examples.num_examples, examples.items = self._data.num_examples, self._data.items
        self.items, self.checksum = self._data.counted_items, self._data.checksum
        self.timings: dict[str, float] = {}
        if method == "double_backward":
            with self._operators(method):
                self._require_second_derivative(self._first_part())
        self.method = method or self._fastest_method()
        self._several = method or ("double_backward" if METHODS[0] in self.timings else METHODS[1])

    @property
    def size(self) -> int:
        """P."""
        return self.surface.layout.size

    @property
    def dtype(self) -> torch.dtype:
        """That of the weights, in which vectors are multiplied."""
        return self.point.weights.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.point.weights.device

    def __matmul__(self, v: Tensor) -> Tensor:
        """A v, float64, for a vector (P,) or the columns of (P, k)."""
        if v.ndim not in (1, 2) or len(v) != self.size:
            raise LayoutError(
                f"curvature: expected a vector ({self.size},) or columns ({self.size}, k), got "
                f"{tuple(v.shape)}."
            )
        rows = v.to(self.point.weights).reshape(self.size, -1).T
        start = time.perf_counter()
        total = torch.zeros(rows.shape, dtype=torch.float64, device=self.device)
        method = self.method if len(rows) == 1 else self._several
        with self._operators(method):
            for number, batch in enumerate(self._chunks()):
                total += self._multiply(batch, rows, method, number)
        self.products += len(rows)
        self.seconds += time.perf_counter() - start
        return (total / self.items).T.reshape(v.shape)

    def restricted(self, basis: Tensor) -> Tensor:  # (k, P) -> (k, k)
        r"""\(B A B^T\), float64, in k products: the curvature in the coordinates of a subspace with
        directions B (k, P), such as `Subspace.basis`.

        >>> from lowland.core import Regression
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> net = torch.nn.Linear(2, 1, bias=False)
        >>> surface = LossSurface(net, Regression(noise_variance=1.0), [(x, torch.zeros(2, 1))])
        >>> CurvatureOperator(surface, torch.zeros(2)).restricted(torch.tensor([[1.0, 1.0]]))
        tensor([[2.5000]], dtype=torch.float64)
        """
        if basis.ndim != 2 or basis.shape[1] != self.size:
            raise LayoutError(
                f"basis: expected directions (k, {self.size}), got {tuple(basis.shape)}."
            )
        products = self @ basis.T
        matrix = inner(basis, products.T)
        return (matrix + matrix.T) / 2

    # -- batches ---------------------------------------------------------------------------------

    def _chunks(self) -> Iterator[Any]:
        """The examples in parts of `chunk`; draws of targets need them in one order."""
        for batch in self._data.batches(ordered=self.kind == "fisher"):
            yield from slices(batch, self.chunk)

    def _multiply(self, batch: Any, rows: Tensor, method: str, number: int = 0) -> Tensor:
        product = hessian if self.kind == "hessian" else gauss_newton
        return product(self._batch_loss(batch, number), self.point.weights, rows, method)

    def _operators(self, method: str) -> AbstractContextManager[PlainWeightNorm]:
        module, lacking = self.surface.template.module, _LACKING[method]
        return differentiable_operators(module, derivative=lacking, weight_norm=self._weight_norm)

    def _batch_loss(self, batch: Any, number: int) -> BatchLoss:
        """The batch's loss, a sum over items, in the two steps that products are made of."""
        surface, task = self.surface, self.surface.task
        args, kwargs, target = surface.labelled(batch)

        def outputs(w: Tensor) -> Tensor:
            parameters = surface.layout.materialise(w)
            vectors = surface.template.spectral_vectors(
                parameters, self._buffers, differentiable=self.kind == "hessian"
            )
            return surface.forward(parameters, {**self._buffers, **vectors}, args, kwargs)

        def item_losses(w: Tensor) -> Tensor:
            output = outputs(w)
            if self.kind == "empirical_fisher":
                return task.items_nll(output, target)
            if number not in self._draws:
                generator = stream("fisher targets", self.seed, number)
                self._draws[number] = [
                    sample_targets(task, output.detach(), target, generator=generator)
                    for _ in range(self.samples)
                ]
            losses = torch.cat([task.items_nll(output, draw) for draw in self._draws[number]])
            return losses / math.sqrt(self.samples)

        if self.kind in ("fisher", "empirical_fisher"):
            return BatchLoss(item_losses, None)
        return BatchLoss(outputs, lambda output: task.items_nll(output, target).sum())

    def _loss_and_gradient(self) -> tuple[float, Tensor]:
        """One pass, which also checks the examples."""
        surface = self.surface
        total = torch.zeros((), dtype=torch.float64, device=surface.device)
        gradient = torch.zeros(self.size, dtype=torch.float64, device=surface.device)
        leaf = self.point.weights.detach().clone().requires_grad_()
        with self._operators("double_backward") as mode:
            for batch in self._chunks():
                args, kwargs, target = surface.labelled(batch)
                parameters = surface.layout.materialise(leaf)
                output = surface.forward(parameters, self._buffers, args, kwargs)
                check_batch(surface.task, (args, kwargs), output, target)
                loss = surface.task.items_nll(output, target).sum()
                total += loss.detach()
                gradient += torch.autograd.grad(loss, leaf, materialize_grads=True)[0]
        self._weight_norm = mode.used
        items = self._data.counted_items
        if not math.isfinite(value := float(total) / items):
            raise NonFiniteError(
                f"the loss at these weights is {value}: it has no curvature; take weights of a run "
                "that converged."
            )
        return value, gradient / items

    # -- the method ------------------------------------------------------------------------------

    def _first_part(self) -> Any:
        return next(iter(slices(next(self._chunks()), _TIMED)))

    def _fastest_method(self) -> str:
        """The method of less time for a vector, by timing both on a batch."""
        batch = self._first_part()
        v = torch.randn(1, self.size, generator=stream("timed product", 0)).to(self.point.weights)
        products: dict[str, Tensor] = {}
        errors: list[Exception] = []
        for method in METHODS[: 1 if self.surface.template.forward.recomputes else 2]:
            try:
                with self._operators(method):
                    if method == "double_backward":
                        self._require_second_derivative(batch)
                    products[method] = self._multiply(batch, v, method)
                    self.timings[method] = min(self._time(batch, v, method) for _ in range(2))
            except (ConfigError, RuntimeError) as error:
                errors.append(error)
        if not products:
            raise errors[0]
        self._draws.clear()  # of fewer examples
        both = len(products) == len(METHODS)
        if both and not _agree(*(products[method] for method in METHODS)):
            # a tangent that an operator of the user's computes otherwise than its gradient
            del self.timings["forward"]
        return min(self.timings, key=self.timings.__getitem__)

    def _require_second_derivative(self, batch: Any) -> None:
        surface = self.surface
        leaf = self.point.weights.detach().clone().requires_grad_()
        args, kwargs, target = surface.labelled(batch)
        parameters = surface.layout.materialise(leaf)
        output = surface.forward(parameters, self._buffers, args, kwargs)
        loss = surface.task.items_nll(output, target).sum()
        (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True, materialize_grads=True)
        require_second_derivative(gradient)

    def _time(self, batch: Any, v: Tensor, method: str) -> float:
        start = time.perf_counter()
        self._multiply(batch, v, method).sum().item()
        return time.perf_counter() - start

    def __repr__(self) -> str:
        return f"CurvatureOperator({self.kind!r}, P={self.size}, method={self.method!r})"


_LACKING = {"double_backward": "second derivative", "forward": "forward derivative"}


def _agree(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).norm() <= _TOLERANCE * a.norm() + torch.finfo(a.dtype).tiny)
