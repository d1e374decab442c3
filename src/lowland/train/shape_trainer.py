"""Steps of SGD on the free anchors of a shape."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lowland.core import LossSurface
from lowland.core.autograd import explain_vmap_errors
from lowland.core.buffers import Buffers, restack_buffers, stack_buffers
from lowland.core.names import join_names
from lowland.errors import ConfigError, NonFiniteError
from lowland.geometry import Shape
from lowland.geometry.base import linear_combination
from lowland.tensor_files import tensor_checksum
from lowland.train.anchors import CHUNK, Anchors, anchor_gram, sample_weights
from lowland.train.coordinates import CoordinateStream
from lowland.train.flat import FlatModel
from lowland.train.objective import Objective
from lowland.train.options import TrainOptions
from lowland.train.trainer import Trainer

_LOSS_MOMENTUM = 0.99  # of the running mean of the loss, a step


class ShapeTrainer(Trainer):
    r"""Trains the free anchors of a shape: the loss is \(E_t L(w(t))\).

    By the chain rule \(\partial L / \partial A_a = c_a(t)\, g\) with the gradient g at w(t): it is
    computed once a sample, for the plain model, and added to each free anchor's gradient times its
    coefficient.
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
        self.sample_weights = sample_weights(shape, objective.measure)
        self.samples = objective.samples
        self.strategy = "accumulate" if self.samples == 1 else objective.strategy
        self.weight_decay, self.log_volume = objective.weight_decay, objective.log_volume
        compile = options.compile
        options = replace(
            options,
            autocast=surface.template.autocast,
            channels_last=surface.channels_last,
            compile=False,  # what is compiled is the model, and not the anchors
        )
        model = Anchors(shape)
        super().__init__(model, surface.task, data, options, epochs=epochs, validate=validate)
        self.flat = FlatModel(surface, compile=compile)
        if shape.buffers is not None:  # training begins with the mean of the anchors' buffers
            mean = restack_buffers(torch.ones(1, len(shape.anchors)), shape.buffers)
            self.flat.load_state({name: value[0] for name, value in mean.items()})
        self.num_samples = 0  # drawn so far
        self.mean_loss = 0.0  # a running mean, where samples have weights
        self.point_gradient = torch.empty_like(self.flat.weights)  # (P,), at one sample
        self.gradients = torch.empty_like(self.model.matrix[: len(self.model.free)])  # (F, P)
        self._point_views, self._gradient_views = map(
            self.flat.views, (self.point_gradient, self.gradients[0])
        )
        self.coordinates = CoordinateStream(shape, self.options.seed)
        self._num_items: int | None = None  # of the batch under way

    # -- the gradient ----------------------------------------------------------------------------

    def _loss_and_gradient(self, batch: Any, items: int) -> Tensor:
        self.model.attach()
        coords, coefficients = self.coordinates.at(self.num_samples, self.samples)
        self.num_samples += self.samples
        if self.strategy is None:
            self.strategy = self._faster_strategy(coords, batch)
        scale = 1 / self.options.accumulate
        losses = self.losses_and_gradients(
            coords, batch, coefficients, scale=scale, items=items, out=self.gradients
        )
        for parameter, gradient in zip(self.model.free, self.gradients, strict=True):
            if scale == 1 and self.needs_closure is False:
                parameter.grad = gradient  # written anew at every step: nothing is allocated
            elif parameter.grad is None:
                parameter.grad = gradient.clone()
            else:
                parameter.grad.add_(gradient)
        return losses[0] if len(losses) == 1 else losses.mean()

    def _optimizer_step(self, waiting: int) -> None:
        super()._optimizer_step(waiting)
        self.model.attach()  # before collectors read the shape

    def _evaluate_again(self) -> Tensor:
        # at the same coordinates as the first pass
        self.num_samples -= self.samples * len(self.step_batches)
        mean_loss = self.mean_loss
        loss = super()._evaluate_again()
        self.mean_loss = mean_loss
        return loss

    def _training_buffers(self) -> list[Tensor]:
        return list(self.flat.buffers().values())

    @torch.no_grad()
    def losses_and_gradients(
        self,
        coords: Tensor,
        batch: Any,
        coefficients: Tensor | None = None,
        *,
        out: Tensor,
        scale: float = 1.0,
        items: int | None = None,
    ) -> Tensor:
        """Losses (S,) at coordinates (S, k), without their weights; writes the mean gradient of the
        free anchors, times `scale`, to `out` (F, P)."""
        if coefficients is None:
            coefficients = self.shape.coefficients(coords)  # (S, A) float64
        self._num_items = items
        shares = coefficients[:, self.model.free_indices] * scale / len(coords)  # (S, F)
        weights, gram = self._weights_and_gram(coords)
        if weights is not None:
            shares = shares * weights.detach()[:, None].to(shares)
        share_rows = shares.tolist()
        anchor_coefficients = coefficients.to(self.model.matrix)
        if self.strategy == "vmap":
            losses, values = self._map(anchor_coefficients, batch, share_rows, out)
        else:
            losses, values = self._one_by_one(anchor_coefficients, batch, share_rows, out)
        if gram is not None:
            by_gram = self._gram_gradient(values, weights, gram) * scale
            self._add_gram_gradient(by_gram[self.model.free_indices], out)
        return losses

    def _weights_and_gram(self, coords: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Weights (S,) of the samples, and the anchors' inner products (A, A) that they are a
        function of. None: all weights are one; nothing depends on the inner products."""
        if self.sample_weights is None and not self.log_volume:
            return None, None
        gram = anchor_gram(self.model.matrix, self.shape).requires_grad_()
        if self.sample_weights is None:
            return None, gram
        with torch.enable_grad():
            return self.sample_weights(coords.to(gram.device), gram), gram

    def _add_gram_gradient(self, by_gram: Tensor, out: Tensor) -> None:  # (F, A), (F, P)
        """Adds by_gram @ anchors to `out`. Its rows sum to zero, since lengths and volumes do not
        depend on the origin: relative to the first anchor nothing cancels, even far from zero."""
        by_gram = by_gram.to(out)
        anchors = self.model.matrix
        for part, into in zip(anchors.split(CHUNK, 1), out.split(CHUNK, 1), strict=True):
            into.addmm_(by_gram, part - part[:1])

    def _gram_gradient(self, values: Tensor, weights: Tensor | None, gram: Tensor) -> Tensor:
        r"""The part of the gradient that goes through the anchors' inner products G: the anchors
        are multiplied with \(M + M^T\).

        \(M = \partial / \partial G\) of the mean over samples of weight times loss, the losses held
        constant, less \(\lambda_V \log V\). Its cost does not grow with P.
        """
        with torch.enable_grad():
            objective = gram.new_zeros(())
            if weights is not None:
                # the weights average to one, so that subtracting the mean loss changes no
                # expectation, and removes much of the noise
                mean = float(values.double().mean())
                self.mean_loss = self.mean_loss if self.num_samples > self.samples else mean
                objective = (weights * (values.double() - self.mean_loss)).mean()
                self.mean_loss += (1 - _LOSS_MOMENTUM) * (mean - self.mean_loss)
            if self.log_volume:
                log = self.shape.log_volume(gram)
                if not bool(torch.isfinite(log)):
                    raise NonFiniteError(
                        f"the volume is gone at step {self.step + 1}: the vertices came to lie in "
                        "fewer dimensions; raise log_volume= or jitter=, or lower the learning "
                        "rate."
                    )
                objective = objective - self.log_volume * log
            (by,) = torch.autograd.grad(objective, gram)
        return by + by.mT

    def _point_loss_and_gradient(
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
            items=self._num_items,
        )
        return loss[None], self._with_decay(loss[None], w[None])

    def _with_decay(self, losses: Tensor, weights: Tensor) -> Tensor:
        if self.sample_weights is None or not self.weight_decay:
            return losses
        return losses + self.weight_decay / 2 * weights.square().sum(1)

    def _one_by_one(
        self, coefficients: Tensor, batch: Any, shares: list[list[float]], out: Tensor
    ) -> tuple[Tensor, Tensor]:
        results = []
        for s, row in enumerate(coefficients):
            if len(out) == 1:  # written to `out` itself, with no copy between
                share = shares[s][0]
                views = self._gradient_views
                results.append(self._point_loss_and_gradient(row, batch, views, share, add=s > 0))
                continue
            results.append(self._point_loss_and_gradient(row, batch, self._point_views))
            for into, share in zip(out, shares[s], strict=True):
                if s:
                    into.add_(self.point_gradient, alpha=share)
                else:
                    torch.mul(self.point_gradient, share, out=into)
        losses, values = zip(*results, strict=True)
        return torch.cat(losses), torch.cat(values)

    def _map(
        self, coefficients: Tensor, batch: Any, shares: list[list[float]], out: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All samples as one batched computation; dropout differs between samples."""

        def loss(w: Tensor) -> Tensor:
            return self.surface.loss(w, batch, train=True)

        weights = linear_combination(coefficients, self.model.matrix)  # (S, P)
        if self.epoch == 0:  # labels cannot be checked within vmap
            parts = self.surface.labelled(batch)
            parameters = self.surface.layout.materialise(weights[0])
            cuda = [self.device] if self.device.type == "cuda" else []
            with torch.no_grad(), torch.random.fork_rng(devices=cuda):
                output = self.surface.forward(
                    parameters, {}, parts.args, parts.kwargs, mode="train"
                )
                self.task.check(output, parts.target)
            self._require_no_state(parameters, parts)
        instead = "leave strategy= out, or take 'accumulate'"
        with explain_vmap_errors(self.surface.template.module, instead=instead):
            grads, losses = torch.func.vmap(
                torch.func.grad_and_value(loss), randomness="different"
            )(weights)
        if self.weight_decay:
            grads = grads.add(weights, alpha=self.weight_decay)
        torch.mm(torch.tensor(shares, dtype=grads.dtype, device=grads.device).T, grads, out=out)
        return losses, self._with_decay(losses, weights)

    def _require_no_state(self, parameters: Mapping[str, Tensor], batch: Any) -> None:
        """Raises `ConfigError` for layers whose running state each sample would change in turn."""
        changed = self.surface.template.state_changed_by_training(parameters, {}, batch)
        if changed:
            raise ConfigError(
                f"strategy: 'vmap' would lose what training writes to {join_names(changed)}; leave "
                "strategy= out, or take 'accumulate'."
            )

    def _faster_strategy(self, coords: Tensor, batch: Any) -> str:
        """The strategy whose step takes less time."""
        times = {}
        mean_loss = self.mean_loss
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # where an operation has no batching rule, torch loops over it, slowly, and warns
            warnings.filterwarnings("error", ".*batching rule")
            for strategy in ("accumulate", "vmap"):
                self.strategy = strategy
                try:
                    self.losses_and_gradients(coords, batch, out=self.gradients)  # warms up
                    start = time.perf_counter()
                    self.losses_and_gradients(coords, batch, out=self.gradients)
                    times[strategy] = time.perf_counter() - start
                except (ConfigError, RuntimeError, UserWarning):  # the model cannot be mapped over
                    if strategy == "accumulate":
                        raise
        self.mean_loss = mean_loss
        return min(times, key=lambda name: times[name])

    def shape_buffers(self) -> Buffers | None:
        """The shape's buffers, with those of the free anchors as training left them."""
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
            "anchors": tensor_checksum(self.shape.anchors, *(self.shape.buffers or {}).values()),
            "model": surface.layout.fingerprint,
            "task": repr(surface.task),
            "autocast": str(surface.template.autocast),
            "channels_last": surface.channels_last,
            "measure": self.objective.measure,
            "samples": self.samples,
            "weight_decay": self.weight_decay,
            "log_volume": self.log_volume,
        }

    def _state_dict(self) -> dict[str, Any]:
        own: dict[str, Any] = {"drawn": self.num_samples, "typical": self.mean_loss}
        own |= {"strategy": self.strategy, "buffers": self.flat.buffers()}
        return super()._state_dict() | own

    def _load_state_dict(self, state: dict[str, Any]) -> None:
        super()._load_state_dict(state)
        self.num_samples, self.mean_loss = state["drawn"], state["typical"]
        # the strategy decides the last bits
        self.strategy = state["strategy"] or self.strategy
        for name, buffer in self.flat.buffers().items():
            buffer.copy_(state["buffers"][name])
