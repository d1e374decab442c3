r"""log p(D | w) of many weight vectors, again and again: what samplers ask for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NotRequired, TypedDict, Unpack

import torch
from torch import Tensor

from lowland.core import LossSurface
from lowland.core.call import check_batch
from lowland.core.data import free_memory
from lowland.core.layout import inner
from lowland.core.options import EvalKeywords, Plan
from lowland.core.task import count_examples
from lowland.errors import ConfigError, StoreError
from lowland.evaluate.batched import vmapped
from lowland.evaluate.engine import Examples
from lowland.evaluate.networks import networks, stacked
from lowland.evaluate.nll import LogLikelihoodSums, log_likelihoods, resolve_task
from lowland.evaluate.planner import SMALL, Work, own_point, plan, time_plan
from lowland.evaluate.rebatch import pieces
from lowland.evaluate.traced import traced
from lowland.evaluate.weights import Block
from lowland.geometry import Shape
from lowland.geometry.base import linear_combination
from lowland.schema import require

_STREAMED = 32  # points that see the rows together as they are read
_OFTEN = 200  # calls with as many points, after which tracing pays


class Memory(TypedDict):
    """How a likelihood was planned, in files."""

    plans: dict[str, tuple[str, int, int]]
    seen: dict[str, int]
    bare: NotRequired[list[int]]


class LogLikelihood:
    r"""\(\log p(D | w) = \sum_i \log p(y_i | x_i, w)\) as a function of (n, P), made once.

    Rows are read, checked and held where they fit in memory, and put together or apart into pieces
    of a few thousand, since sums do not depend on it. How many weight vectors go together, and on
    how many threads, is planned at the first call with about as many. Evaluation mode.

    Weights or outputs that are not finite give what they give, NaN or -inf, and nothing is raised:
    a sampler takes either for a density of zero.

    Args:
        loader: rows; None: the surface's own.
        trace: whether to go by bare operations, without modules and vmap, see `traced`; None: of
            small networks without BatchNorm, after a few hundred calls with as many points.
        options: see `EvalOptions`, whose fields are keyword arguments.

    Raises:
        DataError: rows without targets, labels out of range. LayoutError: weights of another model.

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
        self.rows = self.examples.data
        if self.examples.resident is not None:
            self.examples.resident = list(pieces(self.examples.resident))
        self.batches = self.examples.resident
        self._check([self.rows.first()] if self.batches is None else self.batches)
        self._refreshes = surface.has_batchnorm and self.options.batchnorm == "refresh"
        self._plans: dict[int, Plan] = {}  # by the power of two below the number of points
        self._seen: dict[int, int] = {}  # calls, by the number of points
        self._bare: dict[int, Callable[[Tensor], Tensor]] = {}  # by points at once: see `traced`

    def __call__(self, weights: Tensor) -> Tensor:  # (n, P) -> (n,) float64
        """log p(D | w_i) of each row."""
        self.surface.layout.check(weights)
        weights = weights.reshape(-1, self.surface.layout.size)
        weights = weights.to(self.surface.device, self.surface.layout.dtype)
        return self._of(len(weights), lambda part: Block(weights[part]))

    def along(self, shape: Shape, coords: Tensor) -> Tensor:  # (n, k) -> (n,) float64
        """The same at coordinates of a shape: weights are made a chunk at a time."""
        z = shape._rows(coords)
        buffered = self._buffered(shape)
        return self._of(len(z), lambda part: self._block(shape, z[part], buffered=buffered))

    def value_and_grad(self, shape: Shape, coords: Tensor) -> tuple[Tensor, Tensor]:
        r"""The same, and its gradient in the coordinates: (n,), (n, k) float64.

        By the chain rule through the anchors, \(\partial_z = \sum_a \partial_z c_a\, \langle A_a,
        \partial_w \rangle\): no gradient (n, P) of large networks is ever held.
        """
        z = shape._rows(coords)
        c, slopes = shape.coefficients(z), shape.slopes(z)
        blocks = partial(self._block, shape, buffered=self._buffered(shape))
        chosen = self._planned(len(c))
        with chosen.running():
            try:
                values, into = self._gradients(shape, blocks, z, c, chosen)
            except ConfigError:
                # of a model that recomputes vmap gives values, and no gradients
                if self.options.strategy == "vmap" or not self.surface.template.forward.recomputes:
                    raise
                chosen = replace(chosen, strategy="points")
                values, into = self._gradients(shape, blocks, z, c, chosen)
        by_anchor = torch.cat(into) if into else c.new_zeros(c.shape)  # (n, A)
        return _joined(values, c), torch.einsum("nka,na->nk", slopes, by_anchor)

    def state_dict(self) -> dict[str, Any]:
        """How it was planned: what makes values of a later process the same bit by bit."""
        plans = {str(k): (p.strategy, p.chunk, p.threads) for k, p in self._plans.items()}
        seen = {str(n): calls for n, calls in self._seen.items()}
        return {"plans": plans, "seen": seen, "bare": list(self._bare)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on as what `state_dict` is of; raises `StoreError` for what is none."""
        require(state, Memory, source="how a likelihood was planned")
        bytes_each = self.surface.layout.size * self.surface.layout.dtype.itemsize
        for size in state.get("bare", ()):
            if not 0 < size * bytes_each < free_memory(self.surface.device):
                raise StoreError(f"{size} points at once do not fit into memory; start anew.")
        if self.options.plan is None:
            self._plans = {int(key): Plan(*values) for key, values in state["plans"].items()}
        self._seen = {int(n): calls for n, calls in state["seen"].items()}
        self._bare = {size: self._traced(size) for size in state.get("bare", ())}

    # -- values ----------------------------------------------------------------------------------

    @torch.no_grad()
    def _of(self, n: int, block: Callable[[slice], Block]) -> Tensor:
        """Values (n,) of n points, of which `block` gives some."""
        chosen = self._planned(n)
        together = chosen.strategy == "vmap" or self.batches is None
        with chosen.running():
            parts = _parts(n, chosen.chunk if together else 1)
            values = [self._values(block(part), chosen) for part in parts]
        return _joined(values, torch.empty(0, device=self.surface.device))

    def _values(self, block: Block, chosen: Plan) -> Tensor:  # (n,)
        bare = self._bare.get(len(block)) if chosen.strategy == "vmap" else None
        if bare is None or block.buffers is not None:
            return self._evaluated(block, chosen)
        return bare(block.weights)

    def _evaluated(self, block: Block, chosen: Plan) -> Tensor:  # (n,)
        mapped = chosen.strategy == "vmap"
        outputs = networks(self.surface, block, self.options, mapped=mapped)
        self.sink.alone = not mapped and self.batches is not None
        unseen = self.batches is None and self.rows.items is None  # others were checked before
        self.examples.feed(outputs, 0, len(block), check=unseen)
        return self.sink.values

    # -- gradients -------------------------------------------------------------------------------

    def _gradients(
        self,
        shape: Shape,
        blocks: Callable[[Tensor], Block],
        z: Tensor,
        c: Tensor,
        chosen: Plan,
    ) -> tuple[list[Tensor], list[Tensor]]:
        parts = _parts(len(c), chosen.chunk if chosen.strategy == "vmap" else 1)
        found = [self._gradient(shape, blocks(z[part]), c) for part in parts]
        return [value for value, _ in found], [gradient for _, gradient in found]

    def _gradient(self, shape: Shape, block: Block, like: Tensor) -> tuple[Tensor, Tensor]:
        """Values (n,) and the gradient by the coefficients (n, A), where and in what `like` is."""
        if self._refreshes or self.batches is None:
            return self._whole_gradient(shape, block, like)
        layout, n = self.surface.layout, len(block)
        parameters, buffers = stacked(self.surface, block, self.options)
        # leaves of their own: a flat gradient would be a copy of all
        leaves = {name: view.detach().requires_grad_() for name, view in parameters.items()}
        total = torch.zeros(n, dtype=torch.float64, device=self.surface.device)
        with torch.enable_grad():
            for batch in self.batches:
                value = self._leaves_sum(leaves, buffers, batch, n)
                total += value.detach()
                value.sum().backward()
        into = like.new_zeros(n, like.shape[1], device=self.surface.device)
        for entry in layout.entries:
            gradient = leaves[entry.name].grad
            if gradient is not None:
                part = slice(entry.offset, entry.offset + entry.size)
                anchors = shape.anchors[:, part].to(gradient.device)
                into += inner(gradient.reshape(n, -1), anchors)
        return total.to(like.device), into.to(like.device)

    def _leaves_sum(
        self, leaves: dict[str, Tensor], buffers: dict[str, Tensor], batch: Any, n: int
    ) -> Tensor:  # (n,)
        args, kwargs, target = batch
        if n > 1:
            outputs = vmapped(self.surface, leaves, buffers, args, kwargs)
        else:
            one, own = ({name: t[0] for name, t in part.items()} for part in (leaves, buffers))
            outputs = self.surface.forward(one, own, args, kwargs).unsqueeze(0)
        return log_likelihoods(self.sink.task, outputs, target, alone=n == 1)

    def _whole_gradient(self, shape: Shape, block: Block, like: Tensor) -> tuple[Tensor, Tensor]:
        """Through refreshed statistics, or rows that are read again: one by one."""
        values, into = [], []
        for point in block:
            if not bool(torch.isfinite(point.weights.sum())):
                values.append(like.new_tensor(torch.nan))
                into.append(torch.full_like(like[0], torch.nan))
                continue
            loss, gradient = self.surface.value_and_grad(
                point, batchnorm=self.options.batchnorm, loader=self.rows
            )
            items = self.rows.items or 1
            values.append((-items * loss).to(like.device))
            into.append(-items * inner(shape.anchors, gradient.to(like.device)))
        return torch.stack(values), torch.stack(into)

    # -- how -------------------------------------------------------------------------------------

    def _block(self, shape: Shape, z: Tensor, *, buffered: bool) -> Block:  # z: (n, k)
        # a subspace may be held in another precision than the model
        weights = linear_combination(shape.coefficients(z), shape.anchors)
        weights = weights.to(self.surface.device, self.surface.layout.dtype)
        buffers = shape.buffers_at(z) if buffered else None
        return Block(weights, None if buffers is None else self.surface.own_buffers(buffers))

    def _buffered(self, shape: Shape) -> bool:
        """Whether the points of a shape have other buffers than the surface: constants do not
        keep a density from bare operations."""
        if shape.buffers is None:
            return False
        own, ours = self.surface.own_buffers(shape.buffers), self.surface.buffers
        return not all(len(b) == 1 and torch.equal(b[0], ours[name]) for name, b in own.items())

    def _check(self, batches: list[Any]) -> None:
        """Targets, by the outputs of the model as it came."""
        with torch.no_grad():
            for index, batch in enumerate(batches):
                args, kwargs, target = self.surface.labelled(batch)
                output = self.surface.forward({}, {}, args, kwargs)
                if index == 0:
                    self.sink.task = resolve_task(self.sink.task, output[None], target)
                check_batch(self.sink.task, (args, kwargs), output, target)

    def _planned(self, n: int) -> Plan:
        """The plan for about n points, made at the first call and once more after many."""
        key = max(n, 1).bit_length()
        if key not in self._plans:
            self._plans[key] = self._plan(n)
        self._seen[n] = self._seen.get(n, 0) + 1
        many = _OFTEN if self.trace is None else 1 if self.trace else 0
        if self._seen[n] == many:
            self._plans[key] = self._with_bare(n, self._plans[key])
        return self._plans[key]

    def _with_bare(self, n: int, chosen: Plan) -> Plan:
        """The plan with bare operations, where they can be had and are faster."""
        mapped = chosen.strategy == "vmap"
        small = chosen.seconds is not None and chosen.seconds < SMALL
        free = self.options.strategy is None and small and not self._rounded
        fixed = self.surface.has_batchnorm or self.surface.template.spectral
        if self.batches is None or fixed or not (mapped or free):
            return chosen
        size = min(chosen.chunk, n)
        bare = self._traced(size)
        if mapped:
            self._bare[size] = bare
            return chosen
        at_once = Plan("vmap", size, self.options.threads or 1)
        seconds = self._time(at_once, lambda _, w: bare(w))
        if seconds > self._time(chosen, lambda _, w: self._evaluated(Block(w), chosen)):
            return chosen
        self._bare[size] = bare
        return replace(at_once, seconds=seconds)

    def _time(self, candidate: Plan, timed: Callable[[str, Tensor], Any]) -> float:
        assert self.batches is not None
        work = Work(self.batches[0], batches=None, points=None, calls=math.inf, timed=timed)
        return time_plan(candidate, self.surface, own_point(self.surface), work)

    def _traced(self, size: int) -> Callable[[Tensor], Tensor]:
        weights = own_point(self.surface).weights.expand(size, -1).contiguous()
        at_once = Plan("vmap", size, 1)
        return traced(lambda w: self._evaluated(Block(w), at_once), weights)

    def _plan(self, n: int) -> Plan:
        options, threads = self.options, self.options.threads or torch.get_num_threads()
        if self.batches is None:
            return Plan("batches", options.chunk or min(max(n, 1), _STREAMED), threads)
        fits = not self._refreshes or self.surface.statistics.resident() is not None
        # rounded to eight bits, one network and many at once differ by whole nats: a density that
        # changes with the number of chains that wait would be none
        if n < 2 or not fits or (options.strategy is None and self._rounded):
            return Plan("points", 1, threads)
        work = Work(
            max(self.batches, key=count_examples),
            batches=len(self.batches),
            points=n,
            calls=math.inf,
            timed=lambda how, w: self._evaluated(Block(w), Plan(how, len(w), threads)),
        )
        return plan(self.surface, own_point(self.surface), work, options)

    @property
    def _rounded(self) -> bool:
        """Whether anything is computed in half precision."""
        narrow = any(entry.dtype.itemsize < 4 for entry in self.surface.layout.entries)
        return narrow or bool(self.surface.template.autocast)


def _parts(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _joined(values: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat(values) if values else like.new_zeros(0, dtype=torch.float64)
