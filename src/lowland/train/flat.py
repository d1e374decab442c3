"""A model whose parameters are views of one flat vector, for training on shapes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from lowland.core import LossSurface, spectral
from lowland.core.autograd import python_nodes, refuse_reentrant, require_differentiable
from lowland.core.call import call
from lowland.core.names import named_buffers


class FlatModel:
    """A private copy of a surface's model, in training mode, with parameters that are views of w.

    Writing `weights` changes the model, with no functional call and no copy; a parameter of
    another dtype than the flat vector's is written beside it.

    Attributes:
        weights: w, (P,): scratch, to be written before each step.

    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> data = [(torch.ones(2, 1), torch.zeros(2, 1))]
    >>> surface = LossSurface(nn.Linear(1, 1, bias=False), Regression(noise_variance=1.0), data)
    >>> flat, gradient = FlatModel(surface), torch.zeros(1)
    >>> flat.load(torch.tensor([3.0]))
    >>> loss = flat.value_and_grad(surface.task.parts(data[0]), into=flat.views(gradient))
    >>> loss, gradient
    (tensor(5.4189), tensor([3.]))
    """

    def __init__(self, surface: LossSurface, *, compile: bool = False) -> None:
        self.surface = surface
        layout = surface.layout
        module = surface.template.trainable()
        self.parameters = layout.tensors(module)
        self.weights = torch.empty(layout.size, dtype=layout.dtype, device=surface.device)
        self._cast_parameters: list[tuple[Tensor, Tensor]] = []  # (parameter, its part of w)
        self._parts = self.views(self.weights)
        for part, parameter in zip(self._parts, self.parameters, strict=True):
            parameter.requires_grad_(True)
            if parameter.dtype == layout.dtype:
                parameter.data = part
            else:
                self._cast_parameters.append((parameter, part))
        self._buffers = named_buffers(module)
        self._spectral_sites = spectral.sites(module)
        self._state = layout.state_of(module)
        # two fixed shapes, of a batch and of the last one of an epoch: code for any is slower
        self.module: Any = torch.compile(module, dynamic=False) if compile else module

    @torch.no_grad()
    def load(self, w: Tensor) -> None:
        """Writes w; not needed after writing `weights`, unless dtypes are mixed or a weight is
        normalised by its spectral norm."""
        if w is not self.weights:
            self.weights.copy_(w)
        for parameter, part in self._cast_parameters:
            parameter.copy_(part)
        for site in (
            self._spectral_sites
        ):  # points of a shape lie far apart: one iteration would lag behind
            for name, vector in zip(
                (site.u, site.v), spectral.leading_vectors(site.matrix()), strict=True
            ):
                self._buffers[name].copy_(vector)

    def value_and_grad(
        self,
        batch: Any,
        *,
        into: list[Tensor],
        scale: float = 1.0,
        decay: float = 0.0,
        add: bool = False,
        check: bool = False,
        items: int | None = None,
    ) -> Tensor:
        """The mean loss of an unpacked batch.

        Writes scale * (gradient + decay * w) `into` views of a vector, in one pass over the three;
        `add`: adds it to the vector.
        """
        task = self.surface.task
        args, kwargs, target = batch
        with torch.enable_grad():
            checkpoints = refuse_reentrant(self.module) if check else nullcontext()
            with self.surface.template.precision(), checkpoints:
                output = task.output(call(self.module, args, kwargs))
            if check:
                require_differentiable(python_nodes(output) or set(), self.module)
                task.check(output, target)
            loss = task.items_nll(output, target).sum() / max(items or task.count(batch), 1)
            scaled = loss if scale == 1 else loss * scale
            gradients = torch.autograd.grad(scaled, self.parameters, allow_unused=True)
        with torch.no_grad():
            for part, own, gradient in zip(into, self._parts, gradients, strict=True):
                if add:
                    if gradient is not None:
                        part.add_(gradient)
                    if decay:
                        part.add_(own, alpha=decay * scale)
                elif gradient is None:  # a parameter that the loss does not depend on
                    torch.mul(own, decay * scale, out=part)
                elif decay:
                    torch.add(gradient, own, alpha=decay * scale, out=part)
                else:
                    part.copy_(gradient)
        return loss.detach()

    def buffers(self) -> dict[str, Tensor]:
        """The buffers by name, not copied."""
        return self._buffers

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Writes buffers and frozen parameters, by name."""
        for name, tensor in state.items():
            if name in self._state:
                self._state[name].copy_(tensor)

    def views(self, vector: Tensor) -> list[Tensor]:
        """The parts of a flat vector (P,), one a parameter."""
        return list(self.surface.layout.unflatten(vector).values())
