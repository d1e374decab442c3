"""What samplers evaluate: a tempered log density of k coordinates, many points at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lowland import checks
from lowland.errors import ConfigError, NonFiniteError

Function = Callable[[Tensor], Tensor]  # (n, k) -> (n,)
WithGradient = Callable[[Tensor], tuple[Tensor, Tensor]]  # (n, k) -> (n,), (n, k)
Minibatch = Callable[[Tensor, int], tuple[Tensor, Tensor]]  # (n, k), step -> (n,), (n, k)


class Density:
    r"""\(\log p(z) = \tfrac1T \log p(D | z) + \log N(z; 0, s^2 I)\), up to the evidence.

    The temperature divides the log-likelihood alone (Izmailov et al. 2019); the Gaussian is the
    only prior. Points z are float64. A log-likelihood that is not a number counts as
    \(-\infty\).

    Args:
        log_likelihood: a function of n points (n, k) that gives (n,).
        k: how many coordinates.
        prior_scale: s, a standard deviation; None: a flat prior, so that `log_likelihood` is the
            log density itself.
        temperature: T.
        gradient: gives values (n,) and gradients (n, k) of the log-likelihood at once; None: by
            autograd through `log_likelihood`.
        minibatch: the same from a part of the data, scaled to all of it, as a function of points
            and the number of a step: what SGLD and stochastic variational inference take.
        memory: further state that evaluations depend on, such as execution plans, with
            `state_dict` and `load_state_dict`.

    Attributes:
        evaluations: points at which the log-likelihood was evaluated so far.

    Raises:
        ConfigError: a scale or a temperature that is not positive and finite.

    >>> flat = Density(lambda z: torch.zeros(len(z)), 1, prior_scale=2.0)
    >>> flat(torch.tensor([[0.0], [2.0]]))  # log N(0; 0, 4), and half a unit less
    tensor([-1.6121, -2.1121], dtype=torch.float64)
    """

    def __init__(
        self,
        log_likelihood: Function,
        k: int,
        *,
        prior_scale: float | None = 1.0,
        temperature: float = 1.0,
        gradient: WithGradient | None = None,
        minibatch: Minibatch | None = None,
        memory: Any = None,
    ) -> None:
        self.k = checks.whole("k", k, least=1)
        self.prior_scale = prior_scale
        if prior_scale is not None:
            self.prior_scale = checks.number("prior_scale", prior_scale, above=0)
        self.temperature = checks.number("temperature", temperature, above=0)
        self.evaluations = 0
        self.memory = memory
        self._log_likelihood = log_likelihood
        self._gradient = gradient
        self._minibatch = minibatch

    def __call__(self, z: Tensor) -> Tensor:  # (n, k) -> (n,)
        """The log density, float64."""
        return self.likelihood(z) + self.log_prior(z)

    @torch.no_grad()
    def likelihood(self, z: Tensor) -> Tensor:  # (n, k) -> (n,)
        """The tempered log-likelihood, float64: the log density without the prior."""
        self.evaluations += len(z)
        return self._tempered(self._log_likelihood(z), z)

    def log_prior(self, z: Tensor) -> Tensor:  # (n, k) -> (n,)
        """log N(z; 0, s² I), or 0 where the prior is flat."""
        if self.prior_scale is None:
            return z.new_zeros(len(z), dtype=torch.float64)
        unit = z.double() / self.prior_scale
        constant = self.k * (math.log(self.prior_scale) + 0.5 * math.log(2 * math.pi))
        return -0.5 * unit.square().sum(1) - constant

    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:  # (n, k) -> (n,), (n, k)
        """The log density and its gradient, float64; where it is not finite the gradient is 0."""
        self.evaluations += len(z)
        if self._gradient is not None:
            value, gradient = self._gradient(z)
        else:
            with torch.enable_grad():
                leaf = z.detach().clone().requires_grad_()
                value = self._log_likelihood(leaf)
                if not value.requires_grad:
                    raise ConfigError(
                        "log_likelihood: its values have no gradient by the points; compute it by "
                        "torch's operations on them, or give gradient=."
                    )
                # points are independent: the gradient of the sum has the gradient of each
                (gradient,) = torch.autograd.grad(value.sum(), leaf, materialize_grads=True)
        return self._with_prior(z, value.detach(), gradient)

    def minibatch(self, z: Tensor, step: int) -> tuple[Tensor, Tensor]:  # -> (n,), (n, k)
        """Unbiased estimates of the log density and its gradient from the data of one step.

        Raises:
            ConfigError: a density without `minibatch`.
        """
        if self._minibatch is None:
            raise ConfigError(
                "this log density has no minibatches; give minibatch=, or take a sampler that goes "
                "through all data."
            )
        self.evaluations += len(z)
        return self._with_prior(z, *self._minibatch(z, step))

    def at(self, *, prior_scale: float | None, temperature: float) -> Density:
        """The same likelihood, with its state of evaluation, at another s and T."""
        return Density(
            self._log_likelihood,
            self.k,
            prior_scale=prior_scale,
            temperature=temperature,
            gradient=self._gradient,
            minibatch=self._minibatch,
            memory=self.memory,
        )

    def settings(self) -> dict[str, Any]:
        """What must be equal for a stopped run to go on, apart from the data."""
        return {
            "k": self.k,
            "prior_scale": self.prior_scale,
            "temperature": self.temperature,
        }

    @property
    def has_minibatch(self) -> bool:
        """Whether minibatches can be evaluated."""
        return self._minibatch is not None

    def require_finite(self, z: Tensor) -> Tensor:  # (n, k) -> (n,)
        """The log density at the chains' start.

        Raises:
            NonFiniteError: where it is not finite.
        """
        values = self(z)
        bad = (~torch.isfinite(values)).nonzero().flatten().tolist()
        if bad:
            raise NonFiniteError(
                f"the log density is not finite at the start of {len(bad)} of {len(z)} chains "
                f"(the first is {bad[0]}); start nearer to the centre with start=, take a smaller "
                "prior_scale, or look at the weights."
            )
        return values

    def _with_prior(self, z: Tensor, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        value = self._tempered(value, z) + self.log_prior(z)
        gradient = gradient.to(z.device, torch.float64) / self.temperature
        if self.prior_scale is not None:
            gradient = gradient - z / self.prior_scale**2
        finite = torch.isfinite(value) & torch.isfinite(gradient).all(1)
        value = torch.where(finite, value, torch.full_like(value, -math.inf))
        return value, torch.where(finite[:, None], gradient, torch.zeros_like(gradient))

    def _tempered(self, value: Tensor, z: Tensor) -> Tensor:
        if value.shape != (len(z),):
            raise ConfigError(
                f"log_likelihood: expected ({len(z)},) for points {tuple(z.shape)}, got "
                f"{tuple(value.shape)}; it takes many points (n, k) at once."
            )
        value = value.to(z.device, torch.float64) / self.temperature  # of a model on a GPU too
        return value.nan_to_num_(nan=-math.inf, posinf=-math.inf, neginf=-math.inf)
