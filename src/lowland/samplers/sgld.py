"""Stochastic gradient Langevin dynamics: chains that read a part of the data at each step."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from lowland import checks
from lowland.errors import ConfigError
from lowland.records import Chain
from lowland.samplers.base import MarkovChain
from lowland.samplers.density import Density
from lowland.samplers.job import Job
from lowland.warn import warn

REJECTED = 0.01  # share of steps to where the density is not finite, above which it warns


class SGLD(MarkovChain):
    r"""\(z_{t+1} = z_t + \tfrac12 \epsilon_t M \hat g_t + N(0, \epsilon_t M)\), Welling & Teh 2011.

    \(\hat g_t\) is the gradient of the log density by the minibatch of step t. No step is rejected,
    so that draws are of the density only as \(\epsilon \to 0\): with a constant step the bias is of
    the order of \(\epsilon\), and of the minibatches' noise. All chains take the same minibatch at
    a step, so that their noise is not independent, and R-hat does not detect its common part.

    A draw is a point where a minibatch was evaluated; its log density is that estimate. Steps are
    small: take many, and `Job(thin=...)`.

    Args:
        step: \(\epsilon_0\); with `precondition` in units of the prior's variance.
        gamma, offset: of \(\epsilon_t = \epsilon_0 (1 + t / b)^{-\gamma}\) with b = offset; 0: a
            constant step. Draws count equally at whatever step.
        cycle: steps of a cycle of \(\epsilon_t = \tfrac12\epsilon_0 (1 + \cos(\pi r))\), where r
            goes from 0 to 1 in each (Zhang et al. 2020); None: no cycles.
        explore: the share of a cycle, r < explore, that goes without noise and gives no draws.
        precondition: \(M = s^2 I\) with the prior's scale s, else I.

    Raises:
        ConfigError: options out of range, or a density without minibatches.

    >>> data = torch.tensor([0.5, 1.5, 0.0, 2.0])  # y ~ N(z, 1)
    >>> def minibatch(z, step):
    ...     y = data[2 * (step % 2) :][:2]  # half of them
    ...     return -(y - z).square().sum(1), 2 * (y - z).sum(1, keepdim=True)
    >>> whole = lambda z: -0.5 * (data - z).square().sum(1)
    >>> density = Density(whole, 1, minibatch=minibatch)  # N(4 / 5, 1 / 5)
    >>> chain = SGLD(step=0.05).run(density, Job(chains=16, samples=200, thin=5))
    >>> bool((chain.mean - 0.8).abs() < 0.05)
    True
    """

    name: ClassVar[str] = "sgld"
    warmup: ClassVar[int] = 1000
    minibatches: ClassVar[bool] = True

    def __init__(
        self,
        *,
        step: float = 1e-3,
        gamma: float = 0.0,
        offset: float = 1000.0,
        cycle: int | None = None,
        explore: float = 0.8,
        precondition: bool = True,
    ) -> None:
        self.step = checks.number("step", step, above=0)
        self.offset = checks.number("offset", offset, above=0)
        # above 1 steps add up too soon
        self.gamma = gamma = checks.number("gamma", gamma, least=0, most=1)
        self.cycle = cycle = None if cycle is None else checks.whole("cycle", cycle, least=2)
        self.explore = explore = checks.number("explore", explore, least=0, below=1)
        self.precondition = precondition
        if cycle is not None and gamma:
            raise ConfigError(f"cycle: expected no gamma beside it, got gamma={gamma}.")
        if cycle is not None and math.ceil(explore * cycle) >= cycle:
            raise ConfigError(
                f"explore: expected a share in [0, 1) that leaves steps to draw at, got {explore}."
            )

    def check(self, density: Density) -> None:
        super().check(density)
        if not density.has_minibatch:
            raise ConfigError(
                "sgld: this log density has no minibatches; give minibatch=, or take a sampler "
                "that goes through all data, such as 'nuts'."
            )

    def size(self, t: int) -> float:
        r"""\(\epsilon_t\).

        >>> [round(SGLD(step=1.0, gamma=0.5, offset=1).size(t), 3) for t in (0, 1, 3)]
        [1.0, 0.707, 0.5]
        >>> [round(SGLD(step=1.0, cycle=4, explore=0).size(t), 3) for t in range(5)]
        [1.0, 0.854, 0.5, 0.146, 1.0]
        """
        if self.cycle is not None:
            return self.step * 0.5 * (1 + math.cos(math.pi * (t % self.cycle) / self.cycle))
        return self.step * math.pow(1 + t / self.offset, -self.gamma)

    def explores(self, t: int) -> bool:
        """Whether step t has no noise."""
        return self.cycle is not None and (t % self.cycle) / self.cycle < self.explore

    def run(self, density: Density, job: Job) -> Chain:
        chain = super().run(density, job)
        share = 1 - float(self.acceptance().mean())
        if share > REJECTED:
            warn(
                f"{share:.1%} of the steps led to where the log density is not finite and were "
                f"rejected; take a smaller step (now {self.step}).",
            )
        return chain

    def begin(self, density: Density, z: Tensor, log_density: Tensor) -> dict[str, Tensor]:
        # the gradient at the start, to which a first step that is not finite goes back, is 0
        return {
            "z": z,
            "log_density": log_density,
            "gradient": torch.zeros_like(z),
            "next": z.clone(),
            # chains are in step: all have made as many
            "steps": torch.zeros(len(z), dtype=torch.int64),
            "rejected": z.new_zeros(len(z)),
        }

    def advance(self, density: Density, chains: Tensor, warming: Tensor) -> Tensor:
        state = self.state
        t = int(state["steps"][chains[0]])
        z = state["next"][chains]
        value, gradient = density.minibatch(z, t)
        finite = torch.isfinite(value)
        z = torch.where(finite[:, None], z, state["z"][chains])
        gradient = torch.where(finite[:, None], gradient, state["gradient"][chains])
        state["z"][chains] = z
        state["log_density"][chains] = torch.where(finite, value, state["log_density"][chains])
        state["gradient"][chains] = gradient

        size = self.size(t)
        if self.precondition:
            size *= (density.prior_scale or 1.0) ** 2
        proposal = z + 0.5 * size * gradient
        if not self.explores(t):
            noise = torch.randn(z.shape, generator=self.generator, dtype=z.dtype)
            proposal = proposal + math.sqrt(size) * noise
        state["next"][chains] = proposal
        state["steps"][chains] += 1
        state["rejected"][chains] += (~finite).double()
        return torch.full((len(chains),), not self.explores(t))

    def acceptance(self) -> Tensor:
        """(chains,): the share of steps that led to where the log density is finite."""
        return 1 - self.state["rejected"] / self.state["steps"]

    def about(self) -> dict[str, Any]:
        steps = int(self.state["steps"].max())
        return {"steps": steps, "last_step_size": self.size(steps - 1)}
