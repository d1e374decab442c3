"""Stochastic gradient Langevin dynamics of a network's weights, as an optimizer of torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lowland import checks
from lowland.core.seeds import stream
from lowland.trajectory.schedules import cycle_at, cycle_length


class LangevinSGD(torch.optim.SGD):
    r"""SGD with Langevin noise: its iterates are samples of the tempered posterior.

    With the loss \(\ell\), the mean negative log-likelihood of N examples, and weight decay
    \(\lambda\), they are samples of

    \[p(w) \propto \exp\Big(\!-\tfrac{N}{T} \big(\ell(w) + \tfrac{\lambda}{2} \|w\|^2\big)\Big),\]

    the posterior with the prior \(N(0, I / (N \lambda))\) for T = 1. Each step adds noise of the
    standard deviation

    \[\sigma = \sqrt{\frac{2 T (1 - \mu)}{N \eta}}\]

    to each gradient, where \(\eta\) is the learning rate and \(\mu\) the momentum; with dampening d
    \(\eta\) is replaced by \((1 - d)\, \eta\). Without momentum the noise of a step is
    \(N(0, 2 \eta T / N)\): SGLD (Welling & Teh 2011) with the step size \(2 \eta / N\). With
    momentum it is SGHMC (Chen et al. 2014): where the learning rate changes, as at a warm restart,
    the velocity goes on, and not torch's sum of gradients, which holds the noise of small learning
    rates. The samples are exact as \(\eta \to 0\): where the loss
    has curvature h, their variance is too large by the factor
    \(1 / (1 - \eta h / (2 + 2 \mu))\), and minibatches add their own noise.

    With `cycle` it is cSGLD (Zhang et al. 2020): the first part of each cycle explores without
    noise. Use it with a `CyclicalCosineSchedule` and `EndOfCycle` of the same cycle. The paper's
    code has T = 1 / N for its figures on CIFAR.

    Args:
        params, lr, momentum, weight_decay, options: see `torch.optim.SGD`.
        num_examples: N, of the whole training set. The loss is a mean over examples.
        temperature: T; 0: no noise.
        cycle: steps in a cycle; None: noise at every step.
        explore: the share of a cycle without noise.
        seed: of the noise of each step, which is the same in a resumed run. It differs between
            kinds of device.

    Raises:
        ConfigError: numbers out of range.

    >>> w = nn.Parameter(torch.zeros(10_000))  # as many chains of one weight
    >>> optimizer = LangevinSGD([w], lr=0.01, momentum=0.9, num_examples=50)
    >>> for _ in range(200):
    ...     w.grad = 2.0 * w.detach()  # of the loss w^2: the target's variance is 1 / (2 * 50)
    ...     optimizer.step()
    >>> round(float(w.detach().var()), 3)
    0.01
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        *,
        num_examples: int,
        temperature: float = 1.0,
        cycle: float | None = None,
        explore: float = 0.8,
        seed: int = 0,
        **options: Any,
    ) -> None:
        lr = checks.number("lr", lr, least=0)
        weight_decay = checks.number("weight_decay", weight_decay, least=0)
        noise = {
            "num_examples": checks.whole("num_examples", num_examples, least=1),
            "temperature": checks.number("temperature", temperature, least=0),
            "cycle": None if cycle is None else cycle_length(cycle),
            "explore": checks.number("explore", explore, least=0, below=1),
            "seed": checks.seed(seed),
            "steps": 0,
            "last_lr": None,
        }
        momentum = checks.number("momentum", momentum, least=0, below=1)
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, **options)
        self.defaults |= noise
        for group in self.param_groups:  # of which state dicts and copies are made
            group |= noise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step of SGD on gradients to which noise is added; it stays in them."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._keep_velocity(group)
        self._add_noise()
        super().step()
        return loss

    def explores(self) -> bool:
        """Whether the next step has no noise."""
        first = self.param_groups[0]
        if first["cycle"] is None:
            return False
        _, start, end = cycle_at(first["steps"], first["cycle"])
        return bool((first["steps"] - start) / (end - start) < first["explore"])

    def _keep_velocity(self, group: dict[str, Any]) -> None:
        """Scales the momentum so that its product with the learning rate is as before."""
        lr, last = float(group["lr"]), group["last_lr"]
        if lr <= 0:
            return
        group["last_lr"] = lr
        if last is None or last == lr:
            return
        for p in group["params"]:
            momentum = self.state[p].get("momentum_buffer") if p in self.state else None
            if momentum is not None:
                momentum.mul_(last / lr)

    def _add_noise(self) -> None:
        first, is_exploring = self.param_groups[0], self.explores()
        generators: dict[torch.device, torch.Generator] = {}
        scale: Tensor | None = getattr(self, "grad_scale", None)  # set by torch's GradScaler
        for group in self.param_groups:
            std = noise_std(group)
            for p in group["params"] if std > 0 and not is_exploring else ():
                if p.grad is None:
                    continue
                if p.device not in generators:
                    generators[p.device] = stream(
                        "Langevin noise", first["seed"], first["steps"], device=p.device
                    )
                generator = generators[p.device]
                noise = torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device)
                p.grad.add_(noise if scale is None else noise * scale, alpha=std)
        first["steps"] += 1


def noise_std(group: dict[str, Any]) -> float:
    r"""The noise \(\sigma\) in the gradients of a parameter group; 0 for a learning rate of 0.

    >>> group = {"lr": 0.1, "momentum": 0.9, "dampening": 0.0}
    >>> round(noise_std(group | {"temperature": 1.0, "num_examples": 50}), 6)  # sqrt(0.04)
    0.2
    """
    momentum, lr = float(group["momentum"]), float(group["lr"])
    if momentum:  # torch ignores dampening without momentum
        lr *= 1 - float(group["dampening"])
    if lr <= 0:
        return 0.0
    return math.sqrt(2 * group["temperature"] * (1 - momentum) / (group["num_examples"] * lr))
