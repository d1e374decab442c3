"""Elliptical slice sampling."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lowland.samplers.base import MarkovChain
from lowland.samplers.density import Density

Array = np.ndarray

CIRCLE = 2 * math.pi
# A bracket this small is the current point itself: where a log density is rounded differently from
# batch to batch, a slice whose level lies within that rounding would never be found again.
CLOSED = 1e-10


class EllipticalSlice(MarkovChain):
    r"""\(z' = z \cos\theta + \nu \sin\theta\), \(\nu \sim N(0, s^2 I)\) (Murray et al. 2010).

    \(\theta\) is uniform on the circle, then on a bracket that shrinks towards \(\theta = 0\), the
    current point, until the likelihood at z' lies above a uniform share of that at z. There is
    nothing to tune. It mixes well with few coordinates or a likelihood that is broad compared with
    the prior; for a narrow likelihood or many coordinates, see `NUTS`.

    Raises:
        ConfigError: a density with a flat prior.

    All chains take one evaluation a round. A chain that accepts starts its next ellipse in the next
    round, so that none waits for another.

    >>> from lowland.samplers import Job
    >>> density = Density(lambda z: -0.5 * ((z[:, 0] - 2.0) / 0.5) ** 2, 1)
    >>> chain = EllipticalSlice().run(density, Job(chains=4, samples=500))
    >>> bool((chain.mean - 1.6).abs() < 0.1)  # 2 / (1 + 0.5**2)
    True
    """

    name: ClassVar[str] = "ess"
    gaussian_prior: ClassVar[bool] = True

    def begin(self, density: Density, z: Tensor, log_density: Tensor) -> dict[str, Tensor]:
        zeros = torch.zeros_like(log_density)
        return {
            "z": z,
            "log_density": log_density,
            "likelihood": log_density - density.log_prior(z),
            "fresh": torch.ones(len(z), dtype=torch.bool),  # whether its next proposal is a first
            "nu": torch.zeros_like(z),
            "level": zeros.clone(),
            "low": zeros.clone(),
            "high": zeros + CIRCLE,
            "proposals": zeros.clone(),  # after warming up, as are the next two
            "accepted": zeros.clone(),
            "transitions": zeros.clone(),
        }

    def advance(self, density: Density, chains: Tensor, warming: Tensor) -> Tensor:
        # NumPy's views of the same memory: a round has some forty operations on a few numbers
        # each, and a call of NumPy costs a third of one of torch
        state = {name: value.numpy() for name, value in self.state.items()}
        indices = chains.numpy()
        at = slice(None) if len(indices) == len(state["z"]) else indices  # all: no gathering
        # all chains draw the numbers of a first proposal: selecting chains would cost more
        u = torch.rand(2, len(indices), generator=self.generator, dtype=torch.float64).numpy()
        fresh = state["fresh"][at]
        nu = np.where(fresh[:, None], self.normals(density, len(indices)), state["nu"][at])
        first = state["likelihood"][at] + np.log1p(-u[0])  # 1 - u is never 0
        level = np.where(fresh, first, state["level"][at])
        low, high = state["low"][at], state["high"][at]
        theta = low + (high - low) * u[1]
        new = state["z"][at] * np.cos(theta)[:, None] + nu * np.sin(theta)[:, None]
        likelihood = density.likelihood(torch.from_numpy(new)).numpy()

        accepted = (likelihood >= level) & (likelihood > -math.inf)
        low, high = self.shrink(low, high, theta, fresh)
        done = accepted | (high - low < CLOSED)
        low[done], high[done] = 0.0, CIRCLE
        state["nu"][at], state["level"][at] = nu, level
        state["low"][at], state["high"][at], state["fresh"][at] = low, high, done
        if accepted.any():
            to, new, likelihood = indices[accepted], new[accepted], likelihood[accepted]
            state["z"][to], state["likelihood"][to] = new, likelihood
            prior = density.log_prior(torch.from_numpy(new)).numpy()
            state["log_density"][to] = likelihood + prior
        counted = ~warming.numpy()
        state["proposals"][at] += counted
        state["accepted"][at] += counted & accepted
        state["transitions"][at] += counted & done
        return torch.from_numpy(done)

    def normals(self, density: Density, n: int) -> Array:  # -> (n, k)
        """Draws from the prior: the ellipses' other points."""
        assert density.prior_scale is not None  # `check` requires it
        size = (n, density.k)
        normal = torch.randn(size, generator=self.generator, dtype=torch.float64)
        return normal.mul_(density.prior_scale).numpy()

    def shrink(self, low: Array, high: Array, theta: Array, fresh: Array) -> tuple[Array, Array]:
        """The bracket after theta was rejected: theta becomes an end, 0 stays inside."""
        low = np.where(fresh, theta - CIRCLE, np.where(theta < 0, theta, low))
        return low, np.where(theta < 0, high, theta)

    def acceptance(self) -> Tensor:
        return self.state["accepted"] / self.state["proposals"]

    def about(self) -> dict[str, Any]:
        proposals, transitions = self.state["proposals"].sum(), self.state["transitions"].sum()
        return {"evaluations_per_transition": float(proposals / transitions)}
