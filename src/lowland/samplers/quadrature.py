"""Quadrature in up to three dimensions: the posterior itself, for samplers to be judged by."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lowland.errors import ConfigError, NonFiniteError
from lowland.progress import reporting
from lowland.records import Chain
from lowland.samplers import base
from lowland.samplers.base import Job, Sampler
from lowland.samplers.density import Density

WIDE = 6.0  # prior standard deviations from its middle to the box's sides, to begin with
GROWTH = 8  # boxes that are put to either side, once, of one that the posterior leads out of
COARSE = {1: 256, 2: 64, 3: 32}  # intervals a side
STEEP = 3.0  # natural log of the ratio of neighbours, on average: beyond it no grid resolves
NEGLECT = 1e-3  # of the tolerance: the share of mass that a level may leave out
BATCH = 4096  # points at a time, and what a run that is stopped may lose
Bounds = tuple[float, float] | Sequence[tuple[float, float]]


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
        if not 0 < tolerance < 1:
            raise ConfigError(f"tolerance: expected a number between 0 and 1, got {tolerance}.")
        if coarse is not None and coarse < 4:
            raise ConfigError(f"coarse: expected at least 4 intervals a side, got {coarse}.")
        self.bounds = bounds
        self.tolerance = tolerance
        self.coarse = coarse
        self.max_evaluations = max_evaluations

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
        saved = job.resumed(kind)
        if saved is None:
            # log_density: of the points known; found: of the first of those wanted; complete: the
            # last level that was gone through
            state: dict[str, Any] = {
                "level": 0,
                "grown": False,  # whether the box was too small
                "keys": torch.empty(0, dtype=torch.int64),
                "log_density": torch.empty(0, dtype=torch.float64),
                "wanted": first.everything(),
                "found": torch.empty(0, dtype=torch.float64),
                "complete": None,
                "settled": False,
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
            while not state["settled"] and self._affords(density, state):
                lattice = first.grown() if state["grown"] else first
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
        return self._chain(density, first.grown() if state["grown"] else first, state)

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
            state["settled"] = moved < self.tolerance and steep < STEEP
        state["complete"] = {
            "level": state["level"],
            "keys": keys,
            "log_density": values,
            "moments": moments,
            "moved": moved,
            "steep": steep,
            "full": full,
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
        if not state["settled"]:
            by = (
                "there is one level only" if moved is None else f"moments still move by {moved:.3g}"
            )
            warnings.warn(
                f"grid: not converged after {density.evaluations} evaluations at spacing "
                f"{float(grid.spacing.max()):.3g}: {by} (tolerance {self.tolerance}) and "
                f"neighbours differ by a factor of e^{steep:.2g}; raise max_evaluations=, give "
                "narrower bounds=, or raise the temperature.",
                stacklevel=3,
            )
        logs = values + grid.log_weights(keys)
        if self.bounds is None and last is not None and bool(grid.on_edge(last["full"]).any()):
            far = float(grid.high[0]) / (density.prior_scale or 1)
            warnings.warn(
                f"grid: the posterior leads beyond {far:.3g} prior standard deviations, where the "
                "grid ends; take a larger prior_scale, a higher temperature, or another centre.",
                stacklevel=3,
            )
            state["settled"] = False
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
                "converged": state["settled"],
                "on_edge": float((logs - evidence)[edge].exp().sum()),
                "seconds": state["seconds"],
            },
        )


@dataclass(frozen=True)
class Lattice:
    """Points low + n * spacing; `side` intervals a side at level 0, twice as many at each next."""

    low: Tensor  # (k,)
    high: Tensor
    side: int
    level: int = 0

    def at(self, level: int) -> Lattice:
        return Lattice(self.low, self.high, self.side, level)

    # A point is known by one number, its indices written in base intervals + 1.

    @property
    def k(self) -> int:
        return len(self.low)

    @property
    def intervals(self) -> int:
        return self.side * 2**self.level

    @property
    def spacing(self) -> Tensor:  # (k,)
        return (self.high - self.low) / self.intervals

    @property
    def strides(self) -> Tensor:  # (k,)
        return (self.intervals + 1) ** torch.arange(self.k - 1, -1, -1)

    @property
    def countable(self) -> bool:
        """Whether the points' numbers are numbers of 64 bits."""
        return (self.intervals + 1) ** self.k < 2**63

    def grown(self) -> Lattice:
        """The same lattice in a box that is larger to all sides."""
        out = GROWTH * (self.high - self.low)
        side = self.side * (2 * GROWTH + 1)
        return Lattice(self.low - out, self.high + out, side, self.level)

    def from_inner(self, keys: Tensor, inner: Lattice) -> Tensor:
        """The numbers here of points of a box that this one has grown from."""
        ahead = (self.intervals - inner.intervals) // 2
        return ((inner.indices(keys) + ahead) * self.strides).sum(1)

    def everything(self) -> Tensor:
        return torch.arange((self.intervals + 1) ** self.k)

    def indices(self, keys: Tensor) -> Tensor:  # (n,) -> (n, k)
        return keys[:, None] // self.strides % (self.intervals + 1)

    def points(self, keys: Tensor) -> Tensor:  # (n,) -> (n, k)
        return self.low + self.indices(keys) * self.spacing

    def on_edge(self, keys: Tensor) -> Tensor:  # (n,) booleans
        indices = self.indices(keys)
        return ((indices == 0) | (indices == self.intervals)).any(1)

    def from_coarser(self, keys: Tensor, coarser: Lattice) -> Tensor:
        """The same points' numbers here; their order stays."""
        return (2 * coarser.indices(keys) * self.strides).sum(1)

    def log_weights(self, keys: Tensor) -> Tensor:
        """log of the trapezoid rule's weights: a cell's volume, half of it on a side of the box."""
        indices = self.indices(keys)
        halves = ((indices == 0) | (indices == self.intervals)).sum(1)
        return self.spacing.log().sum() - math.log(2) * halves

    def beside(self, keys: Tensor) -> Tensor:
        """The neighbours along the axes, inside the box."""
        indices, found = self.indices(keys), []
        for axis, stride in enumerate(self.strides.tolist()):
            found.append(keys[indices[:, axis] > 0] - stride)
            found.append(keys[indices[:, axis] < self.intervals] + stride)
        return torch.cat(found).unique()

    def around(self, keys: Tensor) -> Tensor:
        """The points and their 3^k - 1 neighbours, inside the box."""
        for axis, stride in enumerate(self.strides.tolist()):
            index = self.indices(keys)[:, axis]
            below, above = keys[index > 0] - stride, keys[index < self.intervals] + stride
            keys = torch.cat([keys, below, above]).unique()
        return keys

    def rises(self, keys: Tensor, values: Tensor) -> Tensor:  # -> (n, k)
        """By axis, the greatest difference to a neighbour that is known; the keys are sorted."""
        indices = self.indices(keys)
        out = values.new_zeros(len(keys), self.k)
        for axis, stride in enumerate(self.strides.tolist()):
            for step in (-1, 1):
                inside = (indices[:, axis] + step >= 0) & (
                    indices[:, axis] + step <= self.intervals
                )
                other = keys + step * stride
                place = torch.searchsorted(keys, other).clamp(max=len(keys) - 1)
                known = inside & (keys[place] == other)
                # both -inf: nothing is known of a slope there
                by = (values[place] - values).abs()
                known &= torch.isfinite(by)  # no slope leads to where there is no density
                out[:, axis] = torch.maximum(out[:, axis], by.where(known, 0.0))
        return out

    def kept(self, keys: Tensor, values: Tensor, rises: Tensor, neglect: float) -> Tensor:
        """The points that may hold mass: all but those whose bounds sum to a share `neglect`."""
        weights = self.log_weights(keys)
        bounds, order = (values + 0.5 * rises.sum(1) + weights).sort()
        total = (values + weights).logsumexp(0)
        dropped = bounds.logcumsumexp(0) < total + math.log(neglect)
        return keys[order[~dropped]].sort().values

    def steepness(self, keys: Tensor, values: Tensor, rises: Tensor) -> float:
        """The mean difference of log density between neighbours: small where it is resolved."""
        weights = (values + self.log_weights(keys)).softmax(0)
        return float(weights @ rises.amax(1).clamp(max=10.0))

    def moments(self, keys: Tensor, values: Tensor) -> dict[str, Tensor]:
        logs = values + self.log_weights(keys)
        weights, points = logs.softmax(0), self.points(keys)
        mean = weights @ points
        centred = points - mean
        covariance = (weights[:, None] * centred).T @ centred
        return {"mean": mean, "covariance": covariance, "log_evidence": logs.logsumexp(0)}


def missing(keys: Tensor, known: Tensor) -> Tensor:
    """Those of the keys that are not among the known ones."""
    return keys[~torch.isin(keys, known, assume_unique=True)]


def difference(before: dict[str, Tensor], now: dict[str, Tensor]) -> float:
    """The most that moments have moved, in units of the standard deviations now."""
    # a grid that one point dominates has none: then nothing has settled
    sd = now["covariance"].diagonal().sqrt()
    mean = (now["mean"] - before["mean"]).abs() / sd
    covariance = (now["covariance"] - before["covariance"]).abs() / (sd[:, None] * sd)
    evidence = (now["log_evidence"] - before["log_evidence"]).abs()
    worst = torch.cat([mean, covariance.flatten(), evidence[None]]).max()
    return float(worst.nan_to_num(nan=math.inf))
