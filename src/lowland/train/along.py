"""Steps of SGD on the free anchors of a shape."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lowland.core import LossSurface
from lowland.core.autograd import mapping
from lowland.core.buffers import Buffers, restack_buffers, stack_buffers
from lowland.core.layout import inner
from lowland.core.names import join_names
from lowland.core.seeds import stream
from lowland.errors import ConfigError, NonFiniteError
from lowland.geometry import Curve, Shape
from lowland.geometry.barycentric import Barycentric
from lowland.geometry.base import linear_combination, rounds
from lowland.train.flat import FlatModel
from lowland.train.model_state import weights_hash
from lowland.train.objective import Objective
from lowland.train.options import TrainOptions
from lowland.train.run import Run

STRATA = 64  # draws of t that are stratified together
_PIECE = 1 << 15  # weights of every anchor that are looked at together: they stay in the cache
_SLENDER = 0.03  # of the height to the length of a simplex, below which float32 loses its volume
_FORGETS = 0.99  # of the running mean of the loss, a step


class Anchors(nn.Module):
    """The anchors of a shape as rows of one matrix: the free ones are parameters (P,)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.matrix = shape.anchors.detach().clone()  # (A, P)
        # the optimizer writes into the rows themselves
        self.free = nn.ParameterList(
            nn.Parameter(row) for row, free in zip(self.matrix, shape.free, strict=True) if free
        )
        self.which = [i for i, free in enumerate(shape.free) if free]

    @torch.no_grad()
    def attach(self) -> None:
        """Makes the parameters rows of the matrix again, after an optimizer that gave one of them
        another tensor as its data."""
        for i, parameter in zip(self.which, self.free, strict=True):
            row = self.matrix[i]
            if parameter.data_ptr() != row.data_ptr():
                parameter.data = row.copy_(parameter)

    def shape_now(self) -> Shape:
        """The shape through the anchors as they are."""
        return self.shape.with_anchors(self.matrix.clone())


def _density(shape: Shape, measure: str) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The weights of draws by their coordinates and the anchors' inner products; None: all one."""
    if measure == "arc":
        assert isinstance(shape, Curve)
        return lambda coords, gram: shape.speed(coords, gram) / shape.arc(gram)
    if not shape.measure_depends_on_anchors:
        return None
    start = _seen(shape.anchors, shape)  # where coordinates are drawn for, to the end
    return lambda coords, gram: shape.density(coords, gram) / shape.density(coords, start)


def _seen(anchors: Tensor, shape: Shape) -> Tensor:  # (A, P) -> (A, A)
    """Inner products of the anchors as seen from the first: all that lengths and volumes need.

    Of float32 anchors products of pieces are float32, summed in float64: for a gradient that is
    enough, and takes a third of the time. But not for the volume of a simplex that is a hundred
    times longer than high.
    """
    if anchors.dtype == torch.float64 or rounds(anchors.device):
        return inner(anchors, anchors, origin=anchors[0])
    total = torch.zeros(len(anchors), len(anchors), dtype=torch.float64, device=anchors.device)
    for part in anchors.split(_PIECE, dim=1):
        apart = part - part[:1]
        total += apart @ apart.T
    if isinstance(shape, Barycentric):
        squares = torch.linalg.eigvalsh(total[1:, 1:])
        if len(squares) and bool(squares[0] < _SLENDER**2 * squares[-1]):
            return inner(anchors, anchors, origin=anchors[0])
    return total


class Along(Run):
    r"""A run whose loss is \(E_t L(w(t))\).

    By the chain rule \(\partial L / \partial A_a = c_a(t)\, g\) with the gradient g at w(t): it is
    found once a draw, for the plain model, and added to each free anchor times its coefficient.
    """

    model: Anchors

    def __init__(
        self,
        shape: Shape,
        surface: LossSurface,
        data: Iterable[Any],
        objective: Objective,
        options: TrainOptions,
        *,
        epochs: int,
        validate: Callable[[Any], Mapping[str, float]] | None = None,
    ) -> None:
        self.shape = shape
        self.surface = surface
        self.objective = objective
        self.density = _density(shape, objective.measure)
        self.samples = objective.samples
        self.strategy = "accumulate" if self.samples == 1 else objective.strategy
        self.weight_decay, self.log_volume = objective.weight_decay, objective.log_volume
        compile = options.compile
        options = replace(
            options,
            autocast=surface.template.autocast,
            channels_last=surface.channels_last,
            compile=False,  # of the anchors: the model that they are points of is
        )
        model = Anchors(shape)
        super().__init__(model, surface.task, data, options, epochs=epochs, validate=validate)
        self.flat = FlatModel(surface, compile=compile)
        if shape.buffers is not None:  # training begins with the mean of the anchors'
            mean = restack_buffers(torch.ones(1, len(shape.anchors)), shape.buffers)
            self.flat.load_state({name: value[0] for name, value in mean.items()})
        self.drawn = 0  # coordinates so far
        self.typical = 0.0  # the running mean of the loss, where the distribution moves
        self.gradient = torch.empty_like(self.flat.weights)  # at one draw
        self.means = torch.empty_like(self.model.matrix[: len(self.model.free)])  # (F, P)
        self._scratch, self._into = map(self.flat.views, (self.gradient, self.means[0]))
        self._block: tuple[int, Tensor, Tensor] | None = None
        self._items: int | None = None  # of the batch under way

    # -- the gradient ----------------------------------------------------------------------------

    def _gradient(self, batch: Any, items: int) -> Tensor:
        self.model.attach()
        coords, coefficients = self.draws(self.samples)
        self.drawn += self.samples
        if self.strategy is None:
            self.strategy = self._faster(coords, batch)
        again = 1 / self.options.accumulate
        losses = self.at(coords, batch, coefficients, scale=again, items=items, out=self.means)
        for parameter, mean in zip(self.model.free, self.means, strict=True):
            if again == 1 and self.needs_closure is False:
                parameter.grad = mean  # written anew at every step: nothing is allocated
            elif parameter.grad is None:
                parameter.grad = mean.clone()
            else:
                parameter.grad.add_(mean)
        return losses[0] if len(losses) == 1 else losses.mean()

    def _apply(self, waiting: int) -> None:
        super()._apply(waiting)
        self.model.attach()  # before anyone looks at the shape

    def _again(self) -> Tensor:
        # at the same coordinates as the first pass
        self.drawn -= self.samples * len(self.group)
        typical = self.typical
        loss = super()._again()
        self.typical = typical
        return loss

    def _buffers(self) -> list[Tensor]:
        return list(self.flat.buffers().values())

    def draws(self, n: int) -> tuple[Tensor, Tensor]:
        """The next n coordinates (n, k) and their coefficients (n, A), float64: a function of the
        seed and of how many came before."""
        rows, done = [], self.drawn
        while done < self.drawn + n:
            block, place = divmod(done, STRATA)
            stop = min(STRATA, place + self.drawn + n - done)
            if self._block is None or self._block[0] != block:
                generator = stream("coordinates", self.options.seed, block)
                # on the CPU: reading them on a GPU would wait for it at every step
                coords = self.shape.sample_coords(STRATA, generator=generator).cpu()
                self._block = block, coords, self.shape.coefficients(coords)
            rows.append([values[place:stop] for values in self._block[1:]])
            done += stop - place
        if len(rows) == 1:
            return rows[0][0], rows[0][1]
        coords, coefficients = map(torch.cat, zip(*rows, strict=True))
        return coords, coefficients

    @torch.no_grad()
    def at(
        self,
        coords: Tensor,
        batch: Any,
        coefficients: Tensor | None = None,
        *,
        out: Tensor,
        scale: float = 1.0,
        items: int | None = None,
    ) -> Tensor:
        """Losses (S,) at coordinates (S, k); into `out` (F, P) the mean over them of the free
        anchors' gradients, times `scale`. Losses of weighted draws are the points' own."""
        if coefficients is None:
            coefficients = self.shape.coefficients(coords)  # (S, A) float64
        self._items = items
        shares = coefficients[:, self.model.which] * scale / len(coords)  # (S, F)
        weights, gram = self._weights(coords)
        if weights is not None:
            shares = shares * weights.detach()[:, None].to(shares)
        each = shares.tolist()
        weights_at = coefficients.to(self.model.matrix)
        if self.strategy == "vmap":
            losses, values = self._together(weights_at, batch, each, out)
        else:
            losses, values = self._one_by_one(weights_at, batch, each, out)
        if gram is not None:
            pull = self._pull(values, weights, gram) * scale
            self._pulled(pull[self.model.which], out)
        return losses

    def _weights(self, coords: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Weights (S,) of the draws, as a function of the anchors' inner products (A, A): None
        where all are one, and where nothing depends on those products."""
        if self.density is None and not self.log_volume:
            return None, None
        gram = _seen(self.model.matrix, self.shape).requires_grad_()
        if self.density is None:
            return None, gram
        with torch.enable_grad():
            return self.density(coords.to(gram.device), gram), gram

    def _pulled(self, pull: Tensor, out: Tensor) -> None:  # (F, A), (F, P)
        """Adds pull @ anchors to `out`. Rows of it sum to zero, since lengths and volumes do not
        depend on the origin: seen from the first anchor nothing cancels, far from zero either."""
        pull = pull.to(out)
        anchors = self.model.matrix
        for part, into in zip(anchors.split(_PIECE, 1), out.split(_PIECE, 1), strict=True):
            into.addmm_(pull, part - part[:1])

    def _pull(self, values: Tensor, weights: Tensor | None, gram: Tensor) -> Tensor:
        r"""What moves the anchors besides the losses' gradients: \(M + M^T\), to multiply A with.

        M is the gradient by their inner products of the mean over draws of weight times loss, with
        the losses held, less \(\lambda \log V\). It costs nothing that grows with P.
        """
        with torch.enable_grad():
            found = gram.new_zeros(())
            if weights is not None:
                # the weights average to one, so that taking the typical loss away changes no
                # expectation, and much of the noise
                middle = float(values.double().mean())
                self.typical = self.typical if self.drawn > self.samples else middle
                found = (weights * (values.double() - self.typical)).mean()
                self.typical += (1 - _FORGETS) * (middle - self.typical)
            if self.log_volume:
                log = self.shape.log_volume(gram)
                if not bool(torch.isfinite(log)):
                    raise NonFiniteError(
                        f"the volume is gone at step {self.step + 1}: the vertices came to lie in "
                        "fewer dimensions; raise log_volume= or jitter=, or lower the rate."
                    )
                found = found - self.log_volume * log
            (by,) = torch.autograd.grad(found, gram)
        return by + by.mT

    def _one(
        self,
        coefficients: Tensor,
        batch: Any,
        into: list[Tensor],
        scale: float = 1.0,
        *,
        add: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Loss and loss with decay, (1,), and the scaled gradient of the latter, at one point."""
        w, decay = self.flat.weights, self.weight_decay
        torch.mv(self.model.matrix.T, coefficients, out=w)
        self.flat.load(w)
        loss = self.flat.value_and_grad(
            batch,
            into=into,
            scale=scale,
            decay=decay,
            add=add,
            check=self.epoch == 0,
            items=self._items,
        )
        return loss[None], self._decayed(loss[None], w[None])

    def _decayed(self, losses: Tensor, weights: Tensor) -> Tensor:
        if self.density is None or not self.weight_decay:  # who else would ask for it
            return losses
        return losses + self.weight_decay / 2 * weights.square().sum(1)

    def _one_by_one(
        self, coefficients: Tensor, batch: Any, shares: list[list[float]], out: Tensor
    ) -> tuple[Tensor, Tensor]:
        found = []
        for s, row in enumerate(coefficients):
            if len(out) == 1:  # straight to where it belongs
                share = shares[s][0]
                found.append(self._one(row, batch, self._into, share, add=s > 0))
                continue
            found.append(self._one(row, batch, self._scratch))
            for into, share in zip(out, shares[s], strict=True):
                if s:
                    into.add_(self.gradient, alpha=share)
                else:
                    torch.mul(self.gradient, share, out=into)
        losses, values = zip(*found, strict=True)
        return torch.cat(losses), torch.cat(values)

    def _together(
        self, coefficients: Tensor, batch: Any, shares: list[list[float]], out: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All draws as one batched computation; dropout differs from draw to draw."""

        def loss(w: Tensor) -> Tensor:
            return self.surface.loss(w, batch, train=True)

        weights = linear_combination(coefficients, self.model.matrix)  # (S, P)
        if self.epoch == 0:  # labels cannot be looked at within vmap
            parts = self.surface.labelled(batch)
            named = self.surface.layout.materialise(weights[0])
            cuda = [self.device] if self.device.type == "cuda" else []
            with torch.no_grad(), torch.random.fork_rng(devices=cuda):
                output = self.surface.forward(named, {}, parts.args, parts.kwargs, mode="train")
                self.task.check(output, parts.target)
            self._require_no_state(named, parts)
        instead = "leave strategy= out, or take 'accumulate'"
        with mapping(self.surface.template.module, instead=instead):
            grads, losses = torch.func.vmap(
                torch.func.grad_and_value(loss), randomness="different"
            )(weights)
        if self.weight_decay:
            grads = grads.add(weights, alpha=self.weight_decay)
        torch.mm(torch.tensor(shares, dtype=grads.dtype, device=grads.device).T, grads, out=out)
        return losses, self._decayed(losses, weights)

    def _require_no_state(self, parameters: Mapping[str, Tensor], batch: Any) -> None:
        """Raises `ConfigError` for layers whose running state each draw would change in turn."""
        moved = self.surface.template.state_that_training_moves(parameters, {}, batch)
        if moved:
            raise ConfigError(
                f"strategy: 'vmap' would lose what training writes to {join_names(moved)}; leave "
                "strategy= out, or take 'accumulate'."
            )

    def _faster(self, coords: Tensor, batch: Any) -> str:
        """How several draws are taken together in less time; BatchNorm and all else are equal."""
        times = {}
        before = self.typical
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # where an operation has no batching rule, torch loops over it, slowly, and warns
            warnings.filterwarnings("error", ".*batching rule")
            for strategy in ("accumulate", "vmap"):
                self.strategy = strategy
                try:
                    self.at(coords, batch, out=self.means)  # warms up
                    start = time.perf_counter()
                    self.at(coords, batch, out=self.means)
                    times[strategy] = time.perf_counter() - start
                except (ConfigError, RuntimeError, UserWarning):  # what cannot be mapped over
                    if strategy == "accumulate":
                        raise
        self.typical = before
        return min(times, key=lambda name: times[name])

    def buffers(self) -> Buffers | None:
        """The shape's buffers: training has changed those of the free anchors."""
        if self.shape.buffers is None:
            return None
        trained = self.flat.buffers()
        own = [self.shape.anchor_buffers(i) or {} for i in range(len(self.shape.anchors))]
        for i, free in enumerate(self.shape.free):
            if free:
                own[i] = {name: trained.get(name, buffer) for name, buffer in own[i].items()}
        return stack_buffers(own)

    # -- checkpoints -----------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        surface = self.surface
        return super()._settings() | {
            "shape": f"{type(self.shape).__name__} of {len(self.shape.anchors)} anchors",
            "anchors": weights_hash(self.shape.anchors, *(self.shape.buffers or {}).values()),
            "model": surface.layout.fingerprint,
            "task": repr(surface.task),
            "autocast": str(surface.template.autocast),
            "channels_last": surface.channels_last,
            "measure": self.objective.measure,
            "samples": self.samples,
            "weight_decay": self.weight_decay,
            "log_volume": self.log_volume,
        }

    def _state(self) -> dict[str, Any]:
        own: dict[str, Any] = {"drawn": self.drawn, "typical": self.typical}
        own |= {"strategy": self.strategy, "buffers": self.flat.buffers()}
        return super()._state() | own

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        self.drawn, self.typical = state["drawn"], state["typical"]
        # how draws are taken together shows in the last bits
        self.strategy = state["strategy"] or self.strategy
        for name, buffer in self.flat.buffers().items():
            buffer.copy_(state["buffers"][name])
