"""Slice sampling along lines, with stepping out and shrinkage."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lowland import checks
from lowland.samplers.base import MarkovChain
from lowland.samplers.density import Density
from lowland.samplers.elliptical import CLOSED

Array = np.ndarray

GAIN = 0.1  # how far a move changes the width in warm-up
DIRECTIONS = ("turn", "random")


class Slice(MarkovChain):
    r"""\(x' = x + t d\), t uniform on \(\{t: p(x + t d) > u\,p(x)\}\), u uniform (Neal 2003).

    An interval of the length of d is laid around the current point at random, steps out until both
    ends are off the slice, then shrinks to each rejected proposal. At most `max_steps`
    intervals are laid end to end, shared at random between the two sides, which keeps the target
    exact. The prior may be flat. A transition is k such moves.

    All chains take one evaluation a round; none waits for another.

    Args:
        directions: "turn": along the coordinates in turn. "random": along directions uniform on the
            sphere. width: the length of d to begin with; None: the prior's scale. While a chain
            warms up its lengths follow its moves (three times the mean move is the length of a
            slice), for each coordinate in turn; later they stay.
        max_steps: an interval's length at most, in lengths of d.

    Raises:
        ConfigError: options out of range.

    >>> from lowland.samplers import Job
    >>> flat = Density(lambda z: -0.5 * ((z[:, 0] - 2.0) / 0.1) ** 2, 1, prior_scale=None)
    >>> chain = Slice().run(flat, Job(chains=4, samples=500))
    >>> bool((chain.mean - 2.0).abs() < 0.02)
    True
    """

    name: ClassVar[str] = "slice"

    def __init__(
        self, *, directions: str = "turn", width: float | None = None, max_steps: int = 32
    ) -> None:
        checks.choice("directions", directions, DIRECTIONS)
        self.directions = directions
        self.width = None if width is None else checks.number("width", width, above=0)
        self.max_steps = checks.whole("max_steps", max_steps, least=1)

    def begin(self, density: Density, z: Tensor, log_density: Tensor) -> dict[str, Tensor]:
        zeros = torch.zeros_like(log_density)
        none = torch.zeros(len(z), dtype=torch.int64)
        return {
            "z": z,
            "log_density": log_density,
            "widths": torch.full_like(z, self.width or density.prior_scale or 1.0),
            "fresh": torch.ones(len(z), dtype=torch.bool),  # whether a new move begins
            "move": none.clone(),  # 0 to k - 1 of a transition
            "direction": torch.zeros_like(z),
            "level": zeros.clone(),
            "low": zeros.clone(),  # the interval, in lengths of the direction
            "high": zeros.clone(),
            "down": none.clone(),  # how often it may still step out
            "up": none.clone(),
            "evaluations": zeros.clone(),  # after warming up, as are the next three
            "proposals": zeros.clone(),
            "accepted": zeros.clone(),
            "transitions": zeros.clone(),
        }

    def advance(self, density: Density, chains: Tensor, warming: Tensor) -> Tensor:
        state = {name: value.numpy() for name, value in self.state.items()}
        at = chains.numpy()
        u = torch.rand(4, len(at), generator=self.generator, dtype=torch.float64).numpy()
        self._renew(state, at, u)
        low, high = state["low"][at], state["high"][at]
        down, up = state["down"][at], state["up"][at]
        direction, level = state["direction"][at], state["level"][at]

        # where each looks: below, else above, else inside
        below, above = down > 0, (down == 0) & (up > 0)
        inside = (down == 0) & (up == 0)
        t = np.where(below, low, np.where(above, high, low + (high - low) * u[3]))
        new = state["z"][at] + t[:, None] * direction
        value = density(torch.from_numpy(new)).numpy()
        on = (value >= level) & (value > -math.inf)

        accepted = inside & on
        rejected = inside & ~on
        low = np.where(below & on, low - 1, np.where(rejected & (t < 0), t, low))
        high = np.where(above & on, high + 1, np.where(rejected & (t >= 0), t, high))
        state["low"][at], state["high"][at] = low, high
        state["down"][at] = np.where(below, np.where(on, down - 1, 0), down)
        state["up"][at] = np.where(above, np.where(on, up - 1, 0), up)
        # a bracket that has closed is the current point: see `elliptical`
        done = accepted | (rejected & (high - low < CLOSED))
        to = at[accepted]
        state["z"][to], state["log_density"][to] = new[accepted], value[accepted]
        warm = warming.numpy()
        learn = accepted & warm
        state["widths"][at[learn]] *= np.where(
            direction[learn] != 0, 1 + GAIN * (3 * np.abs(t[learn, None]) - 1), 1.0
        )
        state["fresh"][at] = done
        move = state["move"][at] + done
        completed = move == density.k
        state["move"][at] = np.where(completed, 0, move)
        state["evaluations"][at] += ~warm
        state["proposals"][at] += inside & ~warm
        state["accepted"][at] += accepted & ~warm
        state["transitions"][at] += completed & ~warm
        return torch.from_numpy(completed)

    def _renew(self, state: dict[str, Array], at: Array, u: Array) -> None:
        """Level, direction and interval of the chains that begin a move."""
        fresh = state["fresh"][at]
        n, k = len(at), state["z"].shape[1]
        if self.directions == "random":  # for all chains: selecting them would cost more
            normal = torch.randn(n, k, generator=self.generator, dtype=torch.float64).numpy()
        to, u = at[fresh], u[:, fresh]
        if not len(to):
            return
        if self.directions == "random":
            unit = normal[fresh] / np.linalg.norm(normal[fresh], axis=1, keepdims=True)
        else:
            unit = np.eye(k)[state["move"][to]]
        state["direction"][to] = unit * state["widths"][to]
        state["level"][to] = state["log_density"][to] + np.log1p(-u[0])  # 1 - u is never 0
        state["low"][to], state["high"][to] = -u[1], 1 - u[1]
        state["down"][to], state["up"][to] = self.share_steps(u[2])

    def share_steps(self, u: Array) -> tuple[Array, Array]:
        """How often the interval may step out below and above, shared at random: from wherever on
        the slice one begins, an interval is then found equally often (Neal's figure 3)."""
        down = np.floor(self.max_steps * u).astype(np.int64)
        return down, self.max_steps - 1 - down

    def acceptance(self) -> Tensor:
        """Of the proposals inside an interval."""
        return self.state["accepted"] / self.state["proposals"]

    def about(self) -> dict[str, Any]:
        evaluations, transitions = self.state["evaluations"].sum(), self.state["transitions"].sum()
        return {
            "evaluations_per_transition": float(evaluations / transitions),
            "widths": self.state["widths"].mean(0).tolist(),
        }
