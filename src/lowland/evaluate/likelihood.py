r"""log p(D | w) of many weight vectors, again and again: what samplers ask for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor

from lowland import checks
from lowland.core import LossSurface
from lowland.core.call import check_batch
from lowland.core.data import concatenate, free_memory, joinable, map_tensors, nbytes
from lowland.core.layout import inner
from lowland.core.task import rows
from lowland.core.threads import MAX_THREADS, using_threads
from lowland.errors import ConfigError, StoreError
from lowland.evaluate.batched import vmapped
from lowland.evaluate.evaluator import Block, run, stacked_buffers
from lowland.evaluate.nll import likelihoods, settled
from lowland.evaluate.planner import SMALL, STRATEGIES, Plan, own_point, plan, time_plan
from lowland.evaluate.traced import traced
from lowland.geometry import Shape
from lowland.geometry.base import combined
from lowland.schema import require

_PIECE = 4096  # rows at once: activations of more leave the cache
_MOST = 1 << 28  # bytes that are put together: there are two of them for a moment
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
        batchnorm: "refresh" re-estimates statistics for each w, "frozen" keeps the model's.
        strategy, chunk: see `predict`. threads: None: one, or as many as torch uses.
        trace: whether to go by bare operations, without modules and vmap, see `traced`; None: of
            small networks without BatchNorm, after a few hundred calls with as many points.

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
        batchnorm: str = "refresh",
        strategy: str | None = None,
        chunk: int | None = None,
        threads: int | None = None,
        trace: bool | None = None,
    ) -> None:
        if batchnorm not in ("refresh", "frozen"):
            raise ConfigError(f"batchnorm: expected 'refresh' or 'frozen', got {batchnorm!r}.")
        if strategy not in (None, *STRATEGIES):
            raise ConfigError(
                f"strategy: expected one of {', '.join(STRATEGIES)}, got {strategy!r}."
            )
        if chunk is not None:
            chunk = checks.whole("chunk", chunk, least=1)
        if threads is not None:
            threads = checks.whole("threads", threads, least=1, most=MAX_THREADS)
        self.surface, self.batchnorm = surface, batchnorm
        self.strategy, self.chunk, self.threads, self.trace = strategy, chunk, threads, trace
        self.rows = surface.rows_of(loader)
        resident = self.rows.resident()
        self.batches = None if resident is None else list(pieces(resident))
        self.task = surface.task
        self._check([self.rows.first()] if self.batches is None else self.batches)
        self._refreshes = surface.has_batchnorm and batchnorm == "refresh"
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
                if self.strategy == "vmap" or not self.surface.template.forward.recomputes:
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
        self._plans = {int(key): Plan(*values) for key, values in state["plans"].items()}
        self._seen = {int(n): calls for n, calls in state["seen"].items()}
        self._bare = {size: self._traced(size) for size in state.get("bare", ())}

    # -- values ----------------------------------------------------------------------------------

    @torch.no_grad()
    def _of(self, n: int, block: Callable[[slice], Block]) -> Tensor:
        """Values (n,) of n points, of which `block` gives some."""
        chosen = self._planned(n)
        how, size = self._one, 1
        if chosen.strategy == "vmap":
            how, size = self._mapped, chosen.chunk
        elif self.batches is None:
            how, size = self._streamed, chosen.chunk
        with chosen.running():
            values = [how(block(part)) for part in _parts(n, size)]
        return _joined(values, torch.empty(0, device=self.surface.device))

    def _mapped(self, block: Block) -> Tensor:  # (n,)
        bare = None if block.buffers is not None else self._bare.get(len(block))
        return self._at_once(block) if bare is None else bare(block.weights)

    def _at_once(self, block: Block) -> Tensor:  # (n,)
        assert self.batches is not None
        parameters = self.surface.layout.materialise(block.weights)
        buffers = stacked_buffers(self.surface, block, parameters, self.batchnorm)
        total = next(iter(parameters.values())).new_zeros((), dtype=torch.float64)
        for args, kwargs, target in self.batches:
            outputs = vmapped(self.surface, parameters, buffers, args, kwargs)
            total = total - likelihoods(self.task, outputs, target).sum(1, dtype=torch.float64)
        return total

    def _one(self, block: Block) -> Tensor:  # (1,)
        parameters = self.surface.layout.materialise(block.weights[0])
        buffers = self.surface.buffers_for(block[0], self.batchnorm)
        total = torch.zeros(1, dtype=torch.float64, device=self.surface.device)
        for batch in self.batches or ():
            total -= self._nll(parameters, buffers, batch)
        return total

    def _nll(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Any
    ) -> Tensor:  # (), float64
        args, kwargs, target = batch
        output = self.surface.forward(parameters, buffers, args, kwargs)
        return self.task.items_nll(output, target).sum(dtype=torch.float64)

    def _streamed(self, block: Block) -> Tensor:  # (n,)
        """Rows that do not fit in memory, read once for all points."""
        weights = block.weights
        values = torch.full((len(weights),), torch.nan, dtype=torch.float64, device=weights.device)
        finite = torch.isfinite(weights).all(1)
        if bool(finite.any()):
            sums = _Sums(self.task)
            points = [block[i] for i in finite.nonzero()[:, 0].tolist()]
            chosen = Plan("batches", len(weights), torch.get_num_threads())
            options: Any = {"batchnorm": self.batchnorm, "strategy": chosen}
            run(self.surface, points, self.rows, sums, **options)
            values[finite] = -sums.nll
        return values

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
        parameters = layout.materialise(block.weights)
        buffers = stacked_buffers(self.surface, block, parameters, self.batchnorm)
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
        if n == 1:
            one = {name: leaf[0] for name, leaf in leaves.items()}
            return -self._nll(one, {name: b[0] for name, b in buffers.items()}, batch)[None]
        args, kwargs, target = batch
        outputs = vmapped(self.surface, leaves, buffers, args, kwargs)
        return -likelihoods(self.task, outputs, target).sum(1, dtype=torch.float64)

    def _whole_gradient(self, shape: Shape, block: Block, like: Tensor) -> tuple[Tensor, Tensor]:
        """Through refreshed statistics, or rows that are read again: one by one."""
        values, into = [], []
        for point in block:
            if not bool(torch.isfinite(point.weights.sum())):
                values.append(like.new_tensor(torch.nan))
                into.append(torch.full_like(like[0], torch.nan))
                continue
            loss, gradient = self.surface.value_and_grad(
                point, batchnorm=self.batchnorm, loader=self.rows
            )
            items = self.rows.items or 1
            values.append((-items * loss).to(like.device))
            into.append(-items * inner(shape.anchors, gradient.to(like.device)))
        return torch.stack(values), torch.stack(into)

    # -- how -------------------------------------------------------------------------------------

    def _block(self, shape: Shape, z: Tensor, *, buffered: bool) -> Block:  # z: (n, k)
        # a subspace may be held in another precision than the model
        weights = combined(shape.coefficients(z), shape.anchors)
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
                    self.task = settled(self.task, output[None], target)
                check_batch(self.task, (args, kwargs), output, target)

    def _planned(self, n: int) -> Plan:
        """The plan for about n points, made at the first call and once more after many."""
        key = max(n, 1).bit_length()
        if key not in self._plans:
            with self._threads():
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
        free = self.strategy is None and small and not self._rounded
        fixed = self.surface.has_batchnorm or self.surface.template.spectral
        if self.batches is None or fixed or not (mapped or free):
            return chosen
        size = min(chosen.chunk, n)
        bare = self._traced(size)
        if mapped:
            self._bare[size] = bare
            return chosen
        point = own_point(self.surface)
        timed = partial(time_plan, surface=self.surface, batch=self.batches[0], point=point)
        at_once = Plan("vmap", size, 1 if self.threads is None else self.threads)
        seconds = timed(at_once, work=lambda _, w: bare(w), repeats=20)
        if seconds > timed(chosen, work=lambda _, w: self._one(Block(w)), repeats=20):
            return chosen
        self._bare[size] = bare
        return replace(at_once, seconds=seconds)

    def _traced(self, size: int) -> Callable[[Tensor], Tensor]:
        weights = own_point(self.surface).weights.expand(size, -1).contiguous()
        return traced(lambda w: self._at_once(Block(w)), weights)

    def _plan(self, n: int) -> Plan:
        threads = torch.get_num_threads()
        if self.batches is None:
            return Plan("batches", self.chunk or min(max(n, 1), _STREAMED), threads)
        fits = not self._refreshes or self.surface.statistics.resident() is not None
        # rounded to eight bits, one network and many at once differ by whole nats: a density that
        # changes with the number of chains that wait would be none
        if n < 2 or not fits or (self.strategy is None and self._rounded):
            return Plan("points", 1, threads)
        chosen = plan(
            self.surface,
            max(self.batches, key=rows),
            own_point(self.surface),
            batches=len(self.batches),
            points=n,
            calls=math.inf,
            work=lambda how, w: (self._at_once if how == "vmap" else self._one)(Block(w)),
            strategy=self.strategy,
            chunk=self.chunk,
        )
        return chosen if self.threads is None else replace(chosen, threads=self.threads)

    @property
    def _rounded(self) -> bool:
        """Whether anything is computed in half precision."""
        narrow = any(entry.dtype.itemsize < 4 for entry in self.surface.layout.entries)
        return narrow or bool(self.surface.template.autocast)

    def _threads(self) -> AbstractContextManager[None]:
        return nullcontext() if self.threads is None else using_threads(self.threads)


class _Sums:
    """A `Sink` of the NLL of each point."""

    whole = False
    ordered = False

    def __init__(self, task: Any) -> None:
        self.task = task
        self.nll = torch.zeros(())

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        found = likelihoods(self.task, outputs, target).sum(1, dtype=torch.float64)
        self.nll = found if index == 0 else self.nll + found

    def end(self, first: int, n: int) -> None:
        pass


def pieces(batches: list[Any]) -> Iterator[Any]:
    """Batches put together and apart again into pieces of a few thousand rows.

    Those whose tensors do not all have the rows, as a graph's, or not one shape, or with lists
    beside them, stay as they are.

    >>> [rows(piece) for piece in pieces([(torch.zeros(n, 2),) for n in (3000, 2000)])]
    [4096, 904]
    """
    apart = all(joinable(batch) for batch in batches)
    small = len(batches) > 1 and max(map(rows, batches)) < _PIECE
    whole = concatenate(batches) if apart and small and nbytes(batches) < _MOST else None
    for batch in batches if whole is None else [whole]:
        size = rows(batch)
        if not apart or size <= _PIECE:
            yield batch
            continue
        for start in range(0, size, _PIECE):
            yield map_tensors(batch, lambda t, at=start: t[at : at + _PIECE])


def _parts(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _joined(values: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat(values) if values else like.new_zeros(0, dtype=torch.float64)
