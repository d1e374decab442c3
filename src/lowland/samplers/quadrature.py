"""Quadrature in up to three dimensions: the posterior itself, for samplers to be judged by."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor

from lowland import checks
from lowland.errors import ConfigError, NonFiniteError
from lowland.progress import reporting
from lowland.records import Chain
from lowland.samplers import base
from lowland.samplers.base import Job, Sampler
from lowland.samplers.density import Density
from lowland.samplers.lattice import Lattice, difference, missing
from lowland.warn import warn

WIDE = 6.0  # prior standard deviations from its middle to the box's sides, to begin with
COARSE = {1: 256, 2: 64, 3: 32}  # intervals a side
STEEP = 3.0  # natural log of the ratio of neighbours, on average: beyond it no grid resolves
NEGLECT = 1e-3  # of the tolerance: the share of mass that a level may leave out
BATCH = 4096  # points at a time, and what a run that is stopped may lose
Bounds = tuple[float, float] | Sequence[tuple[float, float]]


class State(TypedDict):
    """A grid under way."""

    level: int
    grown: bool  # whether the box was too small
    keys: Tensor
    log_density: Tensor  # of the points known
    wanted: Tensor
    found: Tensor  # of the first of those wanted
    complete: dict[str, Any] | None  # the last level that was gone through
    converged: bool
    seconds: float


class Saved(TypedDict):
    """The same in a file."""

    state: State
    evaluations: int


class Grid(Sampler):
    r"""\(E[f] = \sum_n w_n f(z_n) p(z_n) / \sum_n w_n p(z_n)\), the trapezoid rule on a lattice.

    The spacing is halved until mean and covariance (in units of the posterior's standard
    deviations) and the log evidence move by less than `tolerance`; a grid whose neighbours differ
    by more than a factor of e³ on average is halved in any case. Each level keeps the points of
    the one before, and adds new ones only around points that may hold mass: an upper bound on what
    a cell holds is the density at its middle, extrapolated to its corner along its steepest
    differences, which is safe where the log density is concave across a cell. Wherever what is kept
    reaches the rim of the points known, the rim grows. What is left out at a level is at most a
    thousandth of `tolerance` by those bounds.

    **What can be missed**: a mode that is much narrower than the coarsest spacing, apart from all
    others, and announces itself by no slope. Take more `coarse` intervals if that may be.

    Gives a `Chain` of one row, the last level's points with `log_weights` and the `log_evidence`,
    the logarithm of the integral of likelihood^(1/T) times the normalised prior. It is not random;
    `chains`, `samples` and `warmup` of a `Job` do not matter to it.

    Args:
        bounds: (low, high), or a pair for each coordinate: the box to integrate over, whatever lies
            outside; None: six prior standard deviations to either side, and up to a hundred where
            the posterior leads there. A flat prior needs them.
        tolerance: see above. coarse: intervals a side to begin with; None: 256, 64 and 32 for one
            to three coordinates. max_evaluations: after which it warns, and gives what it has.

    Raises:
        ConfigError: options out of range, more than three coordinates, no box. NonFiniteError: no
            finite log density on the coarsest lattice.

    >>> density = Density(lambda z: -0.5 * ((z[:, 0] - 2.0) / 0.5) ** 2, 1)
    >>> chain = Grid().run(density, Job())
    >>> float(chain.mean), float(chain.covariance)  # 2 / (1 + 0.5**2), 0.2
    (1.6000, 0.2000)
    """

    name: ClassVar[str] = "grid"

    def __init__(
        self,
        *,
        bounds: Bounds | None = None,
        tolerance: float = 0.005,
        coarse: int | None = None,
        max_evaluations: int = 2_000_000,
    ) -> None:
        self.bounds = bounds
        self.tolerance = checks.number("tolerance", tolerance, above=0, below=1)
        self.coarse = None if coarse is None else checks.whole("coarse", coarse, least=4)
        self.max_evaluations = checks.whole("max_evaluations", max_evaluations, least=1)

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"bounds": str(self.bounds)}

    def check(self, density: Density) -> None:
        super().check(density)
        if density.k > max(COARSE):
            raise ConfigError(
                f"grid: {density.k} coordinates are too many for quadrature (at most "
                f"{max(COARSE)}); take 'ess', 'slice' or 'nuts'."
            )
        if self.bounds is None and density.prior_scale is None:
            raise ConfigError(
                "grid: a flat prior has no box; give bounds=(low, high) to Grid, or prior_scale=."
            )

    def run(self, density: Density, job: Job) -> Chain:
        self.check(density)
        kind = self.settings() | density.settings()
        first = self._lattice(density)
        begun = kept = time.monotonic()
        saved = job.resumed(kind, Saved)
        if saved is None:
            state: dict[str, Any] = {
                "level": 0,
                "grown": False,
                "keys": torch.empty(0, dtype=torch.int64),
                "log_density": torch.empty(0, dtype=torch.float64),
                "wanted": first.everything(),
                "found": torch.empty(0, dtype=torch.float64),
                "complete": None,
                "converged": False,
                "seconds": 0.0,
            }
        else:
            state = saved["state"]
            density.evaluations = saved["evaluations"]
        past = state["seconds"]

        def keep() -> None:
            state["seconds"] = past + time.monotonic() - begun
            job.keep(kind, {"state": state, "evaluations": density.evaluations})

        with reporting(job.progress, self.name) as report:
            while not state["converged"] and self._affords(density, state):
                lattice = _box(first, state)
                grid = lattice.at(state["level"])
                if not grid.countable:
                    break
                while len(state["found"]) < len(state["wanted"]):
                    batch = state["wanted"][len(state["found"]) :][:BATCH]
                    state["found"] = torch.cat([state["found"], density(grid.points(batch))])
                    report(density.evaluations, self.max_evaluations)
                    if time.monotonic() - kept > base.EVERY:
                        keep()
                        kept = time.monotonic()
                self._take_in(lattice, state)
        keep()
        return self._chain(density, _box(first, state), state)

    def _affords(self, density: Density, state: dict[str, Any]) -> bool:
        more = len(state["wanted"]) - len(state["found"])
        return density.evaluations + more <= self.max_evaluations

    def _take_in(self, lattice: Lattice, state: dict[str, Any]) -> None:
        """Joins what was wanted with what is known, and says what is wanted next."""
        grid = lattice.at(state["level"])
        keys, order = torch.cat([state["keys"], state["wanted"]]).sort()
        values = torch.cat([state["log_density"], state["found"]])[order]
        if not torch.isfinite(values).any():
            raise NonFiniteError(
                f"the log density is finite nowhere on the grid of {len(values)} points to start "
                "from; look at the weights, or give bounds= and more coarse= intervals to Grid."
            )
        rises = grid.rises(keys, values)
        full = grid.kept(keys, values, rises, NEGLECT * self.tolerance)
        state |= {"keys": keys, "log_density": values, "found": values[:0]}
        fresh = self.bounds is None and grid.level == 0 and not state["grown"]
        if fresh and bool(grid.on_edge(full).any()):
            wider = lattice.grown()
            state["keys"] = keys = wider.from_inner(keys, lattice)
            full = wider.from_inner(full, lattice)
            state["grown"] = True
            lattice = grid = wider
        state["wanted"] = missing(grid.beside(full), keys)
        if len(state["wanted"]):
            return  # the rim grows
        moments = grid.moments(keys, values)
        steep, moved = grid.steepness(keys, values, rises), None
        if state["complete"] is not None:
            moved = difference(state["complete"]["moments"], moments)
            state["converged"] = moved < self.tolerance and steep < STEEP
        state["complete"] = {
            "level": state["level"],
            "keys": keys,
            "log_density": values,
            "moments": moments,
            "moved": moved,
            "steep": steep,
            "outside": self.bounds is None and bool(grid.on_edge(full).any()),
        }
        finer = lattice.at(state["level"] + 1)
        if not finer.countable:
            state |= {"level": finer.level, "wanted": state["wanted"][:0]}
            return
        around = finer.around(finer.from_coarser(full, grid))
        keys = finer.from_coarser(keys, grid)
        still = torch.isin(keys, around, assume_unique=True)
        state |= {
            "level": state["level"] + 1,
            "keys": keys[still],
            "log_density": values[still],
            "wanted": missing(around, keys),
        }

    def _lattice(self, density: Density) -> Lattice:
        k, scale = density.k, density.prior_scale
        pairs = torch.as_tensor(
            (-WIDE * scale, WIDE * scale) if self.bounds is None and scale else self.bounds,
            dtype=torch.float64,
        )
        pairs = pairs.expand(k, 2) if pairs.shape == (2,) else pairs
        if pairs.shape != (k, 2) or not bool((pairs[:, 0] < pairs[:, 1]).all()):
            raise ConfigError(
                f"bounds: expected (low, high), or {k} such pairs, got {self.bounds}."
            )
        side = self.coarse or COARSE[k]
        if (side + 1) ** k > self.max_evaluations:
            raise ConfigError(
                f"grid: {side} coarse intervals a side are {(side + 1) ** k} points, more than "
                f"max_evaluations={self.max_evaluations}; take fewer, or raise that."
            )
        return Lattice(pairs[:, 0], pairs[:, 1], side)

    def _chain(self, density: Density, lattice: Lattice, state: dict[str, Any]) -> Chain:
        last = state["complete"]
        if last is None:  # the first level's rim outran the budget
            grid, moved, steep = lattice.at(0), None, math.inf
            keys, values = state["keys"], state["log_density"]
        else:
            grid, moved, steep = lattice.at(last["level"]), last["moved"], last["steep"]
            keys, values = last["keys"], last["log_density"]
        if not state["converged"]:
            by = (
                "there is one level only" if moved is None else f"moments still move by {moved:.3g}"
            )
            warn(
                f"grid: not converged after {density.evaluations} evaluations at spacing "
                f"{float(grid.spacing.max()):.3g}: {by} (tolerance {self.tolerance}) and "
                f"neighbours differ by a factor of e^{steep:.2g}; raise max_evaluations=, give "
                "narrower bounds=, or raise the temperature.",
            )
        logs = values + grid.log_weights(keys)
        outside = last is not None and last["outside"]
        if outside:
            far = float(grid.high[0]) / (density.prior_scale or 1)
            warn(
                f"grid: the posterior leads beyond {far:.3g} prior standard deviations, where the "
                "grid ends; take a larger prior_scale, a higher temperature, or another centre.",
            )
        alive = logs > -math.inf
        keys, values, logs = keys[alive], values[alive], logs[alive]
        evidence = logs.logsumexp(0)
        edge = grid.on_edge(keys)
        return Chain(
            coords=grid.points(keys)[None],
            log_density=values[None],
            sampler=self.name,
            temperature=density.temperature,
            prior_scale=density.prior_scale,
            evaluations=density.evaluations,
            log_weights=(logs - evidence)[None],
            log_evidence=float(evidence),
            about={
                "spacing": grid.spacing.tolist(),
                "halvings": grid.level,
                "moved": moved,
                "converged": state["converged"] and not outside,
                "on_edge": float((logs - evidence)[edge].exp().sum()),
                "seconds": state["seconds"],
            },
        )


def _box(first: Lattice, state: dict[str, Any]) -> Lattice:
    """The lattice of a run: the first one, or what it has grown to."""
    return first.grown() if state["grown"] else first
