"""Sharpness-aware minimisation, as an optimizer around any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lowland import checks
from lowland.errors import ConfigError
from lowland.train.closure import requires_closure

TINY = 1e-12  # below this norm a gradient perturbs by less than rho; one of zeros does not at all


class SAM(Optimizer):
    r"""Sharpness-aware minimisation around any optimizer (Foret et al. 2021).

    \(\min_w \max_{\|\epsilon\| \le \rho} L(w + \epsilon)\): with the gradient g at w, to first
    order the maximum is at \(\epsilon = \rho\, g / \|g\|\). The base optimizer takes its step from
    w with the gradient at \(w + \epsilon\), so that a step is two forward and backward passes.

    `adaptive=True` is ASAM (Kwon et al. 2021),
    \(\epsilon = \rho\, T^2 g / \|T g\|\) with \(T = |w| + \eta\), an ellipsoid that scales with the
    weights. At \(\eta = 0\) it does not change where one layer is multiplied by a number and the
    next is divided by it.

    Three ways to take a step:

    - `optimizer.step(closure)`: the closure clears the gradient, computes the loss of the batch and
      its gradient, and returns the loss; it is called twice, with gradient accumulation over the
      same micro-batches.
    - `loss.backward(); optimizer.first_step(zero_grad=True)`, then the same loss at the perturbed
      weights, `loss.backward(); optimizer.second_step(zero_grad=True)`.
    - `loss.backward()`, then the second pass in `with optimizer.perturbed():`, then a step of
      `optimizer.base_optimizer`. This is the form for `GradScaler` and for clipping: the scale of
      the first gradient does not change its direction, so that only the second one is unscaled and
      clipped, and `scaler.step(optimizer.base_optimizer)` skips a step that overflows.

    On several devices, put the first pass under DDP's `no_sync()`: each rank then perturbs the
    weights by the gradient of its own examples (m-sharpness, which Foret et al. recommend), and the
    gradient of the second pass is averaged over ranks.

    After the second pass the weights are those before the first, bit for bit; also where it fails.
    `ll.sgd(..., sam=0.05)` trains by it, and `ll.sgd(..., sam=0.5, sam_adaptive=True)` by ASAM.

    Args:
        base_optimizer: over the parameters to train; groups and state are shared with it, so that
            either may be given to a learning rate schedule.
        rho: radius of the ball, in the norm of all parameters; a group may have its own `rho`,
            `adaptive` and `eta`. Kwon et al. take 0.5 to 1 for ASAM.
        adaptive: ASAM.
        eta: of ASAM.
        model: its buffers, such as BatchNorm's running statistics, stay as the first pass left
            them. None: both passes update them.

    Attributes:
        base_optimizer: see above.

    Raises:
        ConfigError: a radius that is not positive, an optimizer that evaluates the loss itself,
            sparse gradients, `first_step` twice without `second_step`.

    >>> w = nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> optimizer = SAM(torch.optim.SGD([w], lr=0.1), rho=0.5)
    >>> def closure():  # the loss |w|^2 / 2, whose gradient is w
    ...     optimizer.zero_grad()
    ...     loss = w.square().sum() / 2
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure).item()
    12.5
    >>> w.detach()  # w - 0.1 (w + 0.5 w / |w|)
    tensor([2.6700, 3.5600])
    """

    base_optimizer: Optimizer
    model: nn.Module | None
    settings: dict[str, Any]
    _originals: list[tuple[Tensor, Tensor]]  # perturbed tensors and buffers, with their values

    def __init__(
        self,
        base_optimizer: Optimizer,
        *,
        rho: float = 0.05,
        adaptive: bool = False,
        eta: float = 0.01,
        model: nn.Module | None = None,
    ) -> None:
        if not isinstance(base_optimizer, Optimizer):
            raise ConfigError(
                f"base_optimizer: expected an optimizer, got {type(base_optimizer).__name__}; "
                "write ll.SAM(torch.optim.SGD(model.parameters(), lr=0.1))."
            )
        if requires_closure(base_optimizer):
            raise ConfigError(
                f"base_optimizer: {type(base_optimizer).__name__} evaluates the loss itself, and "
                "SAM cannot perturb the weights of its evaluations; wrap one such as SGD or AdamW."
            )
        settings = {
            "rho": checks.number("rho", rho, above=0),
            "adaptive": bool(adaptive),
            "eta": checks.number("eta", eta, least=0),
        }
        # all that `Optimizer.__init__` makes but groups and state: those are the base's
        self.__setstate__(
            {
                "base_optimizer": base_optimizer,
                "model": None if model is None else checks.module("model", model),
                "settings": settings,
                "defaults": {**base_optimizer.defaults, **settings},
                "_originals": [],
            }
        )
        for group in self.param_groups:
            self._complete(group)

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The groups of the base optimizer, with `rho`, `adaptive` and `eta`."""
        return self.base_optimizer.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        """The state of the base optimizer."""
        return self.base_optimizer.state

    def _complete(self, group: dict[str, Any]) -> None:
        for name, value in self.settings.items():
            group.setdefault(name, value)
        checks.number("rho", group["rho"], above=0)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group to the base optimizer."""
        self._complete(param_group)
        self.base_optimizer.add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        names = ("base_optimizer", "model", "settings", "defaults")
        return {**{name: getattr(self, name) for name in names}, "_originals": []}

    def state_dict(self) -> dict[str, Any]:
        """That of the base optimizer, whose groups have `rho`, `adaptive` and `eta`."""
        return self.base_optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what `state_dict` returned, or the state of a base optimizer alone."""
        self.base_optimizer.load_state_dict(state_dict)
        for group in self.param_groups:
            self._complete(group)

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """A step of the base optimizer with the gradient at the perturbed weights.

        Returns:
            What the closure returned at the weights before the step.
        """
        closure = torch.enable_grad()(closure)
        self.zero_grad()
        loss = closure()
        with self.perturbed():
            closure()
        self.base_optimizer.step()
        return loss

    @torch.no_grad()
    def first_step(self, zero_grad: bool = False) -> None:
        """Perturbs the weights along the present gradient, which may be scaled."""
        if self._originals:
            raise ConfigError(
                "first_step: the weights are perturbed already; call second_step, or restore to "
                "leave this step out."
            )
        parts = self._parts()
        if parts:
            buffers = [] if self.model is None else list(self.model.buffers())
            tensors = [p for _, parameters, _ in parts for p in parameters] + buffers
            self._originals = [(tensor, tensor.clone()) for tensor in tensors]
            self._perturb(parts)
        if zero_grad:
            self.zero_grad()

    def second_step(self, zero_grad: bool = False) -> None:
        """Restores the weights, and takes a step of the base optimizer with the present
        gradient."""
        self.restore()
        self.base_optimizer.step()
        if zero_grad:
            self.zero_grad()

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        """The weights are perturbed within, and the gradient is cleared; afterwards the weights are
        those before."""
        try:
            self.first_step(zero_grad=True)
            yield
        finally:
            self.restore()

    @torch.no_grad()
    def restore(self) -> None:
        """Restores the weights before `first_step`, and the buffers of `model`."""
        if self._originals:
            tensors, values = zip(*self._originals, strict=True)
            torch._foreach_copy_(tensors, values)
            self._originals = []
        self._opt_called = True  # torch's schedules warn before the first step

    def _parts(self) -> list[tuple[dict[str, Any], list[Tensor], list[Tensor]]]:
        """Parameters and their gradients, by group, device and dtype, as foreach functions need
        them."""
        parts: dict[tuple[int, torch.device, torch.dtype], Any] = {}
        for i, group in enumerate(self.param_groups):
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.layout != torch.strided:
                    raise ConfigError(
                        "SAM needs dense gradients, and got sparse ones; make the embedding with "
                        "sparse=False."
                    )
                part = parts.setdefault((i, p.device, p.dtype), (group, [], []))
                part[1].append(p)
                part[2].append(p.grad)
        return list(parts.values())

    def _perturb(self, parts: list[tuple[dict[str, Any], list[Tensor], list[Tensor]]]) -> None:
        steps, norms = [], []
        for group, parameters, gradients in parts:
            scales = None
            if group["adaptive"]:
                scales = torch._foreach_abs(parameters)
                torch._foreach_add_(scales, group["eta"])
                gradients = list(torch._foreach_mul(gradients, scales))
            steps.append((gradients, scales))
            # float16 and bfloat16 would round, or overflow
            dtype = torch.promote_types(gradients[0].dtype, torch.float32)
            norms.append(torch.stack(torch._foreach_norm(gradients, 2, dtype=dtype)).norm())
        dtype = reduce(torch.promote_types, (n.dtype for n in norms))
        norm = torch.stack([n.to(norms[0].device, dtype) for n in norms]).norm().clamp_min(TINY)
        for (group, parameters, _), (gradients, scales) in zip(parts, steps, strict=True):
            factor = (group["rho"] / norm).to(gradients[0].device)
            step = torch._foreach_mul(gradients, factor)
            if scales is not None:
                torch._foreach_mul_(step, scales)
            torch._foreach_add_(parameters, step)
