"""Quadrature in up to three dimensions: the posterior itself, for samplers to be judged by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor

from lowland import checks
from lowland.errors import ConfigError, NonFiniteError
from lowland.progress import reporting
from lowland.records import Chain
from lowland.samplers.base import Sampler
from lowland.samplers.density import Density
from lowland.samplers.job import Job, Run, SavedRun
from lowland.samplers.lattice import Lattice, difference, missing
from lowland.warn import warn

WIDE = 6.0  # prior standard deviations from its middle to the box's sides, to begin with
COARSE = {1: 256, 2: 64, 3: 32}  # intervals a side
STEEP = 3.0  # mean log ratio of neighbours above which a grid does not resolve the density
NEGLECT = 1e-3  # the share of mass that a level may leave out, in units of the tolerance
BATCH = 4096  # points at a time, which a stopped run may lose
Bounds = tuple[float, float] | Sequence[tuple[float, float]]


class State(TypedDict):
    """A grid under way."""

    level: int
    enlarged: bool  # whether the box was too small
    keys: Tensor
    log_density: Tensor  # at these keys
    pending: Tensor  # keys to evaluate
    pending_values: Tensor  # at the first of them
    complete: dict[str, Any] | None  # the last whole level
    converged: bool


class SavedGrid(SavedRun):
    """The same in a checkpoint."""

    state: State


class Grid(Sampler):
    r"""\(E[f] = \sum_n w_n f(z_n) p(z_n) / \sum_n w_n p(z_n)\), the trapezoid rule on a lattice.

    The spacing is halved until mean and covariance (in units of the posterior's standard
    deviations) and the log evidence move by less than `tolerance`; a grid whose neighbours differ
    by more than a factor of e³ on average is halved in any case. Each level keeps the points of the
    one before, and adds new ones only around points that may hold mass. The bound on the mass of a
    cell is the density at its middle, extrapolated to its corner along its steepest differences,
    which is safe where the log density is concave across a cell. Where such points lie at the rim
    of the evaluated ones, the rim moves outwards. By these bounds a level leaves out at most a
    thousandth of `tolerance`.

    **What it can miss**: a mode that is much narrower than the coarsest spacing and far from all
    others. Raise `coarse` where there may be one.

    Returns a `Chain` of one chain, the last level's points with `log_weights` and the
    `log_evidence`, the logarithm of the integral of likelihood^(1/T) times the normalised prior. It
    is deterministic and ignores `chains`, `samples` and `warmup` of a `Job`.

    Args:
        bounds: (low, high), or a pair for each coordinate: the box to integrate over. None: six
            prior standard deviations on either side, and up to a hundred where the posterior
            reaches the edge. A flat prior needs bounds.
        tolerance: see above. coarse: intervals on each side at first; None: 256, 64 and 32 for one
            to three coordinates. max_evaluations: where these run out it warns and returns the
            last level.

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
        first = self._lattice(density)
        run = Run(density, job, self.settings(), form=SavedGrid)
        state: dict[str, Any] = {
            "level": 0,
            "enlarged": False,
            "keys": torch.empty(0, dtype=torch.int64),
            "log_density": torch.empty(0, dtype=torch.float64),
            "pending": first.all_keys(),
            "pending_values": torch.empty(0, dtype=torch.float64),
            "complete": None,
            "converged": False,
        }
        if run.saved is not None:
            state = run.saved["state"]
        with reporting(job.progress, self.name) as report:
            while not state["converged"] and self._affords(density, state):
                lattice = _box(first, state)
                grid = lattice.at(state["level"])
                if not grid.countable:
                    break
                while len(state["pending_values"]) < len(state["pending"]):
                    batch = state["pending"][len(state["pending_values"]) :][:BATCH]
                    state["pending_values"] = torch.cat(
                        [state["pending_values"], density(grid.points(batch))]
                    )
                    report(density.evaluations, self.max_evaluations)
                    run.save_if_due(lambda: {"state": state})
                self._end_pass(lattice, state)
        run.save({"state": state})
        return self._chain(run, _box(first, state), state)

    def _affords(self, density: Density, state: dict[str, Any]) -> bool:
        more = len(state["pending"]) - len(state["pending_values"])
        return density.evaluations + more <= self.max_evaluations

    def _end_pass(self, lattice: Lattice, state: dict[str, Any]) -> None:
        """Merges the new values into the level, and sets the next keys to evaluate."""
        grid = lattice.at(state["level"])
        keys, order = torch.cat([state["keys"], state["pending"]]).sort()
        values = torch.cat([state["log_density"], state["pending_values"]])[order]
        if not torch.isfinite(values).any():
            raise NonFiniteError(
                f"the log density is finite nowhere on the grid of {len(values)} points to start "
                "from; look at the weights, or give bounds= and more coarse= intervals to Grid."
            )
        rises = grid.rises(keys, values)
        full = grid.holding_mass(keys, values, rises, NEGLECT * self.tolerance)
        state |= {"keys": keys, "log_density": values, "pending_values": values[:0]}
        fresh = self.bounds is None and grid.level == 0 and not state["enlarged"]
        if fresh and bool(grid.on_edge(full).any()):
            wider = lattice.enlarged()
            state["keys"] = keys = wider.from_inner(keys, lattice)
            full = wider.from_inner(full, lattice)
            state["enlarged"] = True
            lattice = grid = wider
        state["pending"] = missing(grid.axis_neighbours(full), keys)
        if len(state["pending"]):
            return  # further points at the rim
        moments = grid.moments(keys, values)
        steep, change = grid.steepness(keys, values, rises), None
        if state["complete"] is not None:
            change = difference(state["complete"]["moments"], moments)
            state["converged"] = change < self.tolerance and steep < STEEP
        state["complete"] = {
            "level": state["level"],
            "keys": keys,
            "log_density": values,
            "moments": moments,
            "change": change,
            "steep": steep,
            "outside": self.bounds is None and bool(grid.on_edge(full).any()),
        }
        finer = lattice.at(state["level"] + 1)
        if not finer.countable:
            state |= {"level": finer.level, "pending": state["pending"][:0]}
            return
        neighbourhood = finer.neighbourhood(finer.from_coarser(full, grid))
        keys = finer.from_coarser(keys, grid)
        still = torch.isin(keys, neighbourhood, assume_unique=True)
        state |= {
            "level": state["level"] + 1,
            "keys": keys[still],
            "log_density": values[still],
            "pending": missing(neighbourhood, keys),
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

    def _chain(self, run: Run, lattice: Lattice, state: dict[str, Any]) -> Chain:
        density = run.density
        last = state["complete"]
        if last is None:  # the first level's rim outran the budget
            grid, change, steep = lattice.at(0), None, math.inf
            keys, values = state["keys"], state["log_density"]
        else:
            grid, change, steep = lattice.at(last["level"]), last["change"], last["steep"]
            keys, values = last["keys"], last["log_density"]
        if not state["converged"]:
            by = "there is one level only"
            if change is not None:
                by = f"moments still change by {change:.3g}"
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
                f"grid: the posterior extends beyond {far:.3g} prior standard deviations, where "
                "the grid ends; take a larger prior_scale or temperature, or another centre.",
            )
        alive = logs > -math.inf
        keys, values, logs = keys[alive], values[alive], logs[alive]
        evidence = logs.logsumexp(0)
        edge = grid.on_edge(keys)
        return run.chain(
            grid.points(keys)[None],
            values[None],
            log_weights=(logs - evidence)[None],
            log_evidence=float(evidence),
            about={
                "spacing": grid.spacing.tolist(),
                "halvings": grid.level,
                "moved": change,
                "converged": state["converged"] and not outside,
                "on_edge": float((logs - evidence)[edge].exp().sum()),
            },
        )


def _box(first: Lattice, state: dict[str, Any]) -> Lattice:
    """The lattice of a run: the first one, or the enlarged one."""
    return first.enlarged() if state["enlarged"] else first
