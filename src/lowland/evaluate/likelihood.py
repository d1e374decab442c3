"""log p(D | w) of many weight vectors, for the many calls of a sampler."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, NotRequired, TypedDict, Unpack

import torch
from torch import Tensor

from lowland.core import LossSurface
from lowland.core.call import check_batch
from lowland.core.data import free_memory
from lowland.core.inner import inner
from lowland.core.options import EvalKeywords, Plan
from lowland.core.task import count_examples
from lowland.errors import ConfigError, StoreError
from lowland.evaluate.engine import Examples
from lowland.evaluate.networks import networks, stack_points, vmap_forward
from lowland.evaluate.nll import LogLikelihoodSums, log_likelihoods, resolve_task
from lowland.evaluate.planner import SMALL, Work, model_point, plan, time_plan
from lowland.evaluate.rebatch import rebatch
from lowland.evaluate.shape_blocks import ShapeBlocks
from lowland.evaluate.tracing import trace_function
from lowland.evaluate.weights import Block
from lowland.geometry import Shape
from lowland.schema import require

_STREAMED_CHUNK = 32  # points per pass, where examples are read again for each chunk
_TRACE_AFTER = 200  # calls with as many points


class PlanState(TypedDict):
    """The plans of a likelihood, in files."""

    plans: dict[str, tuple[str, int, int]]
    seen: dict[str, int]
    bare: NotRequired[list[int]]


class LogLikelihood:
    r"""\(\log p(D | w) = \sum_i \log p(y_i | x_i, w)\) as a function of (n, P), for many calls.

    Examples are read, checked and held where they fit in memory, in batches of a few thousand,
    since sums do not depend on the batches. The number of weight vectors at once, and the number of
    threads, are planned at the first call with about as many. Evaluation mode.

    Weights or outputs that are not finite give NaN or -inf, and nothing is raised: samplers take
    either for a density of zero.

    Args:
        loader: labelled examples; None: the surface's own.
        trace: whether to run a graph of the operations alone, without modules and vmap; None: for
            small networks without BatchNorm, after a few hundred calls with as many points.
        options: see `EvalOptions`, whose fields are keyword arguments.

    Raises:
        DataError: examples without targets, labels out of range. LayoutError: weights of another
            model.

    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> data = [(torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [0.0]]))]
    >>> surface = LossSurface(nn.Linear(1, 1, bias=False), Regression(noise_variance=1.0), data)
    >>> LogLikelihood(surface)(torch.tensor([[0.0], [1.0]]))  # the second: - (1 + 4) / 2
    tensor([-1.8379, -4.3379], dtype=torch.float64)
    """

    def __init__(
        self,
        surface: LossSurface,
        *,
        loader: Iterable[Any] | None = None,
        trace: bool | None = None,
        **options: Unpack[EvalKeywords],
    ) -> None:
        self.surface, self.trace = surface, trace
        self.options = surface.options.override(**options)
        self.sink = LogLikelihoodSums(surface.task)
        self.examples = Examples(surface, loader, self.sink, self.options.count)
        self.data = self.examples.data
        if self.examples.resident is not None:
            self.examples.resident = list(rebatch(self.examples.resident))
        self.batches = self.examples.resident
        self._check([self.data.first()] if self.batches is None else self.batches)
        self._refreshes = surface.has_batchnorm and self.options.batchnorm == "refresh"
        self._plans: dict[int, Plan] = {}  # by the power of two below the number of points
        self._calls: dict[int, int] = {}  # by the number of points
        self._graphs: dict[int, Callable[[Tensor], Tensor]] = {}  # traced, by points at once

    def __call__(self, weights: Tensor) -> Tensor:  # (n, P) -> (n,) float64
        """log p(D | w_i) of each weight vector."""
        self.surface.layout.check(weights)
        weights = weights.reshape(-1, self.surface.layout.size)
        weights = weights.to(self.surface.device, self.surface.layout.dtype)
        return self._log_likelihoods(len(weights), lambda part: Block(weights[part]))

    def along(self, shape: Shape, coords: Tensor) -> Tensor:  # (n, k) -> (n,) float64
        """log p(D | w(z_i)) at coordinates of a shape, whose weights are made chunk by chunk."""
        z = shape._rows(coords)
        blocks = ShapeBlocks(shape, self.surface)
        return self._log_likelihoods(len(z), lambda part: blocks(z[part]))

    def value_and_grad(self, shape: Shape, coords: Tensor) -> tuple[Tensor, Tensor]:
        r"""log p(D | w(z)) and its gradient in the coordinates: (n,), (n, k) float64.

        By the chain rule through the anchors, \(\partial_z = \sum_a \partial_z c_a\, \langle A_a,
        \partial_w \rangle\): no gradient (n, P) of large networks is held.
        """
        z = shape._rows(coords)
        c, slopes = shape.coefficients(z), shape.slopes(z)
        blocks = ShapeBlocks(shape, self.surface)
        plan = self._plan_for(len(c))
        with plan.threads_in_use():
            try:
                values, gradients = self._gradients(blocks, z, c, plan)
            except ConfigError:
                # vmap gives values of a model with checkpointing, and no gradients
                if self.options.strategy == "vmap" or not self.surface.template.forward.recomputes:
                    raise
                plan = replace(plan, strategy="points")
                values, gradients = self._gradients(blocks, z, c, plan)
        by_anchor = torch.cat(gradients) if gradients else c.new_zeros(c.shape)  # (n, A)
        return _concatenate(values, c), torch.einsum("nka,na->nk", slopes, by_anchor)

    def explicit_plan(self, n: int) -> Plan:
        """A plan for about n points, timed now: options that follow it (`EvalOptions.with_plan`)
        give the same bits in each process, for values and gradients."""
        plan = self._with_graph(n, self._new_plan(n))
        if plan.strategy == "vmap" and not self.is_mappable():
            return Plan("points", 1, self.options.threads or torch.get_num_threads())
        return plan

    def is_mappable(self) -> bool:
        """Whether several points at once have the values of each alone, but for last bits, and
        gradients: not in half precision, and not of a model that recomputes activations."""
        return not self._is_half_precision and not self._recomputes()

    def state_dict(self) -> dict[str, Any]:
        """The plans: with them, a later process computes the same values bit by bit."""
        plans = {str(k): (p.strategy, p.chunk, p.threads) for k, p in self._plans.items()}
        seen = {str(n): calls for n, calls in self._calls.items()}
        return {"plans": plans, "seen": seen, "bare": list(self._graphs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the plans; raises `StoreError` for another content."""
        require(state, PlanState, source="the plans of a likelihood")
        bytes_each = self.surface.layout.size * self.surface.layout.dtype.itemsize
        for size in state.get("bare", ()):
            if not 0 < size * bytes_each < free_memory(self.surface.device):
                raise StoreError(f"{size} points at once do not fit into memory; start anew.")
        if self.options.plan is None:
            self._plans = {int(key): Plan(*values) for key, values in state["plans"].items()}
        self._calls = {int(n): calls for n, calls in state["seen"].items()}
        self._graphs = {size: self._traced(size) for size in state.get("bare", ())}

    # -- values ----------------------------------------------------------------------------------

    @torch.no_grad()
    def _log_likelihoods(self, n: int, block: Callable[[slice], Block]) -> Tensor:
        """Values (n,) of n points; `block` makes a slice of them."""
        plan = self._plan_for(n)
        in_chunks = plan.strategy == "vmap" or self.batches is None
        with plan.threads_in_use():
            slices = _slices(n, plan.chunk if in_chunks else 1)
            values = [self._values(block(part), plan) for part in slices]
        return _concatenate(values, torch.empty(0, device=self.surface.device))

    def _values(self, block: Block, plan: Plan) -> Tensor:  # (n,)
        graph = self._graphs.get(len(block)) if plan.strategy == "vmap" else None
        if graph is None or block.buffers is not None:
            return self._evaluate(block, plan)
        return graph(block.weights)

    def _evaluate(self, block: Block, plan: Plan) -> Tensor:  # (n,)
        vmap = plan.strategy == "vmap"
        outputs = networks(self.surface, block, self.options, vmap=vmap)
        self.sink.single = not vmap and self.batches is not None
        unchecked = self.batches is None and self.data.items is None
        self.examples.feed(outputs, 0, len(block), check=unchecked)
        return self.sink.values

    # -- gradients -------------------------------------------------------------------------------

    def _gradients(
        self,
        blocks: ShapeBlocks,
        z: Tensor,
        c: Tensor,
        plan: Plan,
    ) -> tuple[list[Tensor], list[Tensor]]:
        slices = _slices(len(c), plan.chunk if plan.strategy == "vmap" else 1)
        results = [self._gradient(blocks.shape, blocks(z[part]), c) for part in slices]
        return [value for value, _ in results], [gradient for _, gradient in results]

    def _gradient(self, shape: Shape, block: Block, like: Tensor) -> tuple[Tensor, Tensor]:
        """Values (n,) and the gradient by the coefficients (n, A), on the device of `like`."""
        if self._refreshes or self.batches is None:
            return self._gradient_by_point(shape, block, like)
        layout, n = self.surface.layout, len(block)
        parameters, buffers = stack_points(self.surface, block, self.options)
        # a leaf per parameter: a flat gradient would be a copy of all
        leaves = {name: view.detach().requires_grad_() for name, view in parameters.items()}
        total = torch.zeros(n, dtype=torch.float64, device=self.surface.device)
        with torch.enable_grad():
            for batch in self.batches:
                value = self._batch_log_likelihood(leaves, buffers, batch, n)
                total += value.detach()
                value.sum().backward()
        by_anchor = like.new_zeros(n, like.shape[1], device=self.surface.device)
        for entry in layout.entries:
            gradient = leaves[entry.name].grad
            if gradient is not None:
                part = slice(entry.offset, entry.offset + entry.size)
                anchors = shape.anchors[:, part].to(gradient.device)
                by_anchor += inner(gradient.reshape(n, -1), anchors)
        return total.to(like.device), by_anchor.to(like.device)

    def _batch_log_likelihood(
        self, leaves: dict[str, Tensor], buffers: dict[str, Tensor], batch: Any, n: int
    ) -> Tensor:  # (n,)
        args, kwargs, target = batch
        if n > 1:
            outputs = vmap_forward(self.surface, leaves, buffers, args, kwargs)
        else:
            weights = {name: leaf[0] for name, leaf in leaves.items()}
            own = {name: buffer[0] for name, buffer in buffers.items()}
            outputs = self.surface.forward(weights, own, args, kwargs).unsqueeze(0)
        return log_likelihoods(self.sink.task, outputs, target, single=n == 1)

    def _gradient_by_point(self, shape: Shape, block: Block, like: Tensor) -> tuple[Tensor, Tensor]:
        """One point at a time: with refreshed statistics, or examples that are read again."""
        values, gradients = [], []
        for point in block:
            if not bool(torch.isfinite(point.weights.sum())):
                values.append(like.new_tensor(torch.nan))
                gradients.append(torch.full_like(like[0], torch.nan))
                continue
            loss, gradient = self.surface.value_and_grad(
                point, batchnorm=self.options.batchnorm, loader=self.data
            )
            items = self.data.items or 1
            values.append((-items * loss).to(like.device))
            gradients.append(-items * inner(shape.anchors, gradient.to(like.device)))
        return torch.stack(values), torch.stack(gradients)

    # -- blocks and plans ------------------------------------------------------------------------

    def _check(self, batches: list[Any]) -> None:
        """Checks targets against the outputs of the surface's model."""
        with torch.no_grad():
            for index, batch in enumerate(batches):
                args, kwargs, target = self.surface.labelled(batch)
                output = self.surface.forward({}, {}, args, kwargs)
                if index == 0:
                    self.sink.task = resolve_task(self.sink.task, output[None], target)
                check_batch(self.sink.task, (args, kwargs), output, target)

    def _plan_for(self, n: int) -> Plan:
        """The plan for about n points, made at the first call, and again with a graph later."""
        key = max(n, 1).bit_length()
        if key not in self._plans:
            self._plans[key] = self._new_plan(n)
        self._calls[n] = self._calls.get(n, 0) + 1
        trace_at = _TRACE_AFTER if self.trace is None else 1 if self.trace else 0
        if self._calls[n] == trace_at:
            self._plans[key] = self._with_graph(n, self._plans[key])
        return self._plans[key]

    def _with_graph(self, n: int, plan: Plan) -> Plan:
        """The plan with a traced graph, where the model can be traced and the graph is faster."""
        vmap = plan.strategy == "vmap"
        is_small = plan.seconds is not None and plan.seconds < SMALL
        may_vmap = self.options.strategy is None and is_small and not self._is_half_precision
        changes_buffers = self.surface.has_batchnorm or self.surface.template.spectral
        if self.batches is None or changes_buffers or not (vmap or may_vmap):
            return plan
        size = min(plan.chunk, n)
        graph = self._traced(size)
        if vmap:
            self._graphs[size] = graph
            return plan
        vmap_plan = Plan("vmap", size, self.options.threads or 1)
        seconds = self._time(vmap_plan, lambda _, w: graph(w))
        if seconds > self._time(plan, lambda _, w: self._evaluate(Block(w), plan)):
            return plan
        self._graphs[size] = graph
        return replace(vmap_plan, seconds=seconds)

    def _time(self, candidate: Plan, timed: Callable[[str, Tensor], Any]) -> float:
        assert self.batches is not None
        work = Work(self.batches[0], batches=None, points=None, calls=math.inf, timed=timed)
        return time_plan(candidate, self.surface, model_point(self.surface), work)

    def _traced(self, size: int) -> Callable[[Tensor], Tensor]:
        weights = model_point(self.surface).weights.expand(size, -1).contiguous()
        plan = Plan("vmap", size, 1)
        return trace_function(lambda w: self._evaluate(Block(w), plan), weights)

    def _new_plan(self, n: int) -> Plan:
        options, threads = self.options, self.options.threads or torch.get_num_threads()
        if self.batches is None:
            return Plan("batches", options.chunk or min(max(n, 1), _STREAMED_CHUNK), threads)
        fits = not self._refreshes or self.surface.statistics.resident() is not None
        # with a significand of eight bits, one network and many at once differ by whole nats: the
        # density would depend on the number of chains in a call
        if n < 2 or not fits or (options.strategy is None and self._is_half_precision):
            return Plan("points", 1, threads)
        work = Work(
            max(self.batches, key=count_examples),
            batches=len(self.batches),
            points=n,
            calls=math.inf,
            timed=lambda strategy, w: self._evaluate(Block(w), Plan(strategy, len(w), threads)),
        )
        return plan(self.surface, model_point(self.surface), work, options)

    def _recomputes(self) -> bool:
        """Whether a pass with gradients shows that the model recomputes activations."""
        args, kwargs, _ = self.examples.data.first()
        weights = model_point(self.surface).weights.detach().requires_grad_()
        with torch.enable_grad():
            self.surface.forward(self.surface.layout.materialise(weights), {}, args, kwargs)
        return bool(self.surface.template.forward.recomputes)

    @property
    def _is_half_precision(self) -> bool:
        """Whether anything is computed in half precision."""
        is_half = any(entry.dtype.itemsize < 4 for entry in self.surface.layout.entries)
        return is_half or bool(self.surface.template.autocast)


def _slices(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _concatenate(values: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat(values) if values else like.new_zeros(0, dtype=torch.float64)
