"""Hamiltonian Monte Carlo with trees that end at U-turns."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lowland import checks
from lowland.errors import NonFiniteError
from lowland.records import Chain
from lowland.samplers import adaptation
from lowland.samplers.adaptation import Array
from lowland.samplers.base import MarkovChain
from lowland.samplers.density import Density
from lowland.samplers.job import Job
from lowland.warn import warn

DIVERGED = 1000.0  # energy error above which the integrator has left the trajectory
MANY = 0.01  # share of divergent transitions above which there is a warning
_Z, _U, _GRADIENT = 0, 1, 2  # the parts of a point of a trajectory


class NUTS(MarkovChain):
    r"""The no-U-turn sampler: \(H(z, p) = -\log p(z) + \tfrac12 p^T \Sigma p\) by leapfrog steps.

    Hoffman & Gelman 2014, as in Betancourt 2017 and Stan: a trajectory doubles, forward or back in
    time, until a subtree turns back on itself, \(p_\pm^T \Sigma \sum p \le 0\) with the sum over
    the subtree, checked across the halves of each subtree too. The next point is drawn from its
    points in proportion to \(e^{-H}\), later halves preferred.

    Trees are built without recursion, one leapfrog step of all chains at a time: a chain that ends
    its tree begins the next at once. Each chain stores \(O(\text{max depth})\) momenta. In warm-up
    each chain learns a step size by dual averaging and a metric in doubling windows; both are
    fixed afterwards.

    Args:
        target_accept: mean acceptance statistic that step sizes are tuned to; nearer to 1 means
            smaller steps, for densities with narrow places.
        max_depth: of trees, which have at most 2^max_depth - 1 steps.
        dense: learns a full covariance, for strongly dependent coordinates; False: variances.

    Raises:
        ConfigError: options out of range.

    >>> wide = Density(lambda z: -0.5 * (z / torch.tensor([1.0, 9.0])).square().sum(1), 2)
    >>> chain = NUTS().run(wide, Job(chains=8, samples=100, warmup=150))
    >>> exact = torch.tensor([1 / 2, 81 / 82])  # with the prior N(0, 1)
    >>> bool((chain.covariance.diagonal() / exact - 1).abs().max() < 0.2)
    True
    """

    name: ClassVar[str] = "nuts"
    warmup: ClassVar[int] = 300

    def __init__(
        self, *, target_accept: float = 0.8, max_depth: int = 10, dense: bool = False
    ) -> None:
        self.target_accept = checks.number("target_accept", target_accept, above=0, below=1)
        self.max_depth = checks.whole("max_depth", max_depth, least=1, most=15)
        self.dense = dense

    def run(self, density: Density, job: Job) -> Chain:
        warmup = self.warmup if job.warmup is None else job.warmup
        self.ends = np.array(adaptation.window_ends(warmup), dtype=np.int64)
        self.slots, self.begins = _bookkeeping(self.max_depth)
        self._of: dict[str, Tensor] | None = None
        chain = super().run(density, job)
        share = float(self.state["totals"][:, 3].sum() / self.state["totals"][:, 0].sum())
        if share > MANY:
            warn(
                f"{share:.1%} of the transitions diverged: chains do not reach places where the "
                "density is narrow or not a number, and draws are biased away from them; raise "
                f"target_accept (now {self.target_accept}), take a longer warm-up or a smaller "
                "prior_scale, or the sampler 'slice'.",
            )
        return chain

    # -- one leapfrog step -----------------------------------------------------------------------

    def begin(self, density: Density, z: Tensor, log_density: Tensor) -> dict[str, Tensor]:
        value, gradient = density.value_and_grad(z)
        bad = (~torch.isfinite(value)).nonzero().flatten().tolist()
        if bad:  # the value itself is finite at a start
            raise NonFiniteError(
                f"the gradient of the log density is not finite at the start of {len(bad)} of "
                f"{len(z)} chains (the first is {bad[0]}); start elsewhere with start=, or take "
                "'slice' or 'ess', which need no gradient."
            )
        n, k = z.shape
        zeros, whole = z.new_zeros(n), torch.zeros(n, dtype=torch.int64)
        return adaptation.begin(z, scale=density.prior_scale or 1.0, dense=self.dense) | {
            "z": z,
            "log_density": value,
            "gradient": gradient,
            # the tree: its ends in time, the sum of its momenta, the log of the sum of its weights
            "ends": z.new_zeros(n, 2, 3, k),
            "total": z.new_zeros(n, k),
            "weight": zeros.clone(),
            "energy": zeros.clone(),  # where it began
            "depth": whole.clone(),
            # the subtree that is being added: where it is, and its draw
            "point": z.new_zeros(n, 3, k),
            "side": whole.clone(),  # 0: back in time, 1: forward
            "leaf": whole.clone(),
            "part": z.new_zeros(n, k),
            "part_weight": zeros.clone(),
            "marks": z.new_zeros(n, self.max_depth, 3, k),  # momenta: first, before it, sum so far
            "draw": z.new_zeros(n, 3, k),
            "draw_value": zeros.clone(),
            "fresh": torch.ones(n, dtype=torch.bool),  # the next step begins a tree
            # for the acceptance statistic and the diagnostics, of transitions after warm-up
            "accepted": zeros.clone(),
            "leaves": zeros.clone(),
            "totals": z.new_zeros(n, 5),  # transitions, acceptance, leaves, divergent, at max_depth
        }

    @np.errstate(all="ignore")  # where a density is not finite
    def advance(self, density: Density, chains: Tensor, warming: Tensor) -> Tensor:
        if self._of is not self.state:  # the first step, or the first after a stop
            self._of, self._arrays = self.state, {k: v.numpy() for k, v in self.state.items()}
        state, rows, warm = self._arrays, chains.numpy(), warming.numpy()
        begins = state["fresh"][rows]
        if begins.any():
            self._begin_trees(rows[begins], warm[begins])

        z, before, gradient = state["point"][rows].swapaxes(0, 1)
        factor = state["factor"][rows]
        step = (state["step"][rows] * (2 * state["side"][rows] - 1))[:, None]
        half = before + 0.5 * step * adaptation.force(factor, gradient)
        z = z + step * adaptation.velocity(factor, half)
        value, gradient = (part.numpy() for part in density.value_and_grad(torch.from_numpy(z)))
        u = half + 0.5 * step * adaptation.force(factor, gradient)
        log_weight = self._log_weight(value, u, state["energy"][rows])
        searching = state["search"][rows] > 0

        turned = self._add_leaf(rows, before, np.stack((z, u, gradient), 1), value, log_weight)
        stop = (turned | ~(log_weight > -DIVERGED)) & ~searching
        whole = state["leaf"][rows] == 1 << state["depth"][rows]
        whole &= ~stop & ~searching
        if whole.any():
            stop[whole] = self._add_subtrees(rows[whole])
            self._begin_subtrees(rows[whole & ~stop])
        if searching.any():
            adaptation.search(state, rows[searching], log_weight[searching])
            state["fresh"][rows[searching]] = True
        if stop.any():
            self._end_trees(density, rows[stop], warm[stop], log_weight[stop])
        return torch.from_numpy(stop)

    def _log_weight(self, value: Array, u: Array, energy: Array) -> Array:
        """How much energy was lost: the logarithm of a point's weight."""
        gained: Array = value - 0.5 * np.vecdot(u, u) + energy
        gained[np.isnan(gained)] = -math.inf
        return gained

    # -- trees -----------------------------------------------------------------------------------

    def _uniform(self, n: int) -> Array:
        """The logarithms of n uniform numbers."""
        return torch.rand(n, generator=self.generator, dtype=torch.float64).log_().numpy()

    def _begin_trees(self, rows: Array, warm: Array) -> None:
        """New momenta. Step sizes are those of warm-up, or after it their average."""
        state = self._arrays
        z = state["z"][rows]
        u = torch.randn(z.shape, generator=self.generator, dtype=torch.float64).numpy()
        state["ends"][rows] = np.stack((z, u, state["gradient"][rows]), 1)[:, None]
        state["total"][rows] = u
        state["weight"][rows] = 0.0
        state["energy"][rows] = 0.5 * np.vecdot(u, u) - state["log_density"][rows]
        state["depth"][rows] = 0
        state["accepted"][rows] = state["leaves"][rows] = 0.0
        state["fresh"][rows] = False
        if not warm.all():
            adapted = rows[~warm & (state["search"][rows] == 0)]
            state["step"][adapted] = np.exp(state["log_step"][adapted])
        self._begin_subtrees(rows)

    def _begin_subtrees(self, rows: Array) -> None:
        """As many points again, before or after those there are."""
        state = self._arrays
        side = torch.randint(2, (len(rows),), generator=self.generator).numpy()
        state["side"][rows] = side
        state["point"][rows] = state["ends"][rows, side]
        state["leaf"][rows] = 0
        state["part"][rows] = 0.0
        state["part_weight"][rows] = -math.inf

    def _add_leaf(
        self,
        rows: Array,
        before: Array,  # (m, k) momentum of the point before
        point: Array,  # (m, 3, k)
        value: Array,  # (m,)
        log_weight: Array,  # (m,)
    ) -> Array:  # (m,)
        """The subtree's next point, as its draw by its weight; whether it ends one that turned."""
        state = self._arrays
        leaf, u = state["leaf"][rows], point[:, _U]
        part = state["part"][rows] + u
        weight = np.logaddexp(state["part_weight"][rows], log_weight)
        take = self._take_leaf(self._uniform(len(rows)), log_weight, weight)
        to = rows[take]
        state["draw"][to], state["draw_value"][to] = point[take], value[take]
        state["point"][rows], state["part"][rows], state["leaf"][rows] = point, part, leaf + 1
        state["part_weight"][rows] = weight
        state["accepted"][rows] += np.exp(np.minimum(log_weight, 0.0))
        state["leaves"][rows] += 1.0

        # An even leaf begins subtrees: its momenta go to the place of the last that has ended
        even = leaf % 2 == 0
        momenta = np.stack((u, before, part), 1)
        state["marks"][rows[even], self.slots[leaf[even]]] = momenta[even]
        turned: Array = ~even
        if turned.any():  # an odd leaf ends some
            odd = rows[turned]
            begins = self.begins[leaf[turned]]
            turned[turned] = self._turned(state["marks"][odd], u[turned], part[turned], begins)
        return turned

    def _take_leaf(self, chance: Array, log_weight: Array, weight: Array) -> Array:
        """Draws in proportion to weights, one after the other; `weight` is the sum so far."""
        return chance < log_weight - weight

    def _turned(self, marks: Array, u: Array, part: Array, begins: Array) -> Array:
        """Whether one of the subtrees that end here, and begin at these marks, turned back."""
        width = int(np.flatnonzero(begins.any(0))[-1]) + 1
        marks, begins = marks[:, :width], begins[:, :width]
        first, before, sums = marks[:, :, 0], marks[:, :, 1], marks[:, :, 2]  # (m, slots, k)
        whole = part[:, None] - sums + first  # of momenta from each mark to here
        here = u[:, None]
        turns = _turns(first, here, whole) & begins
        if width > 1:
            # The next mark begins its second half: from the first half to there, and the other way
            late, early, second = first[:, 1:], before[:, 1:], whole[:, 1:]
            across = _turns(first[:, :-1], late, whole[:, :-1] - second + late)
            across |= _turns(early, here, second + early)
            turns[:, :-1] |= begins[:, :-1] & begins[:, 1:] & across
        ends: Array = np.logical_or.reduce(turns, 1)
        return ends

    def _add_subtrees(self, rows: Array) -> Array:
        """Joins trees with subtrees as large; whether that ends them."""
        state = self._arrays
        weight, part_weight = state["weight"][rows], state["part_weight"][rows]
        # beyond what weights alone would give: far points are preferred
        to = rows[self._uniform(len(rows)) < part_weight - weight]
        draw = state["draw"][to]
        state["z"][to], state["gradient"][to] = draw[:, _Z], draw[:, _GRADIENT]
        state["log_density"][to] = state["draw_value"][to]
        state["weight"][rows] = np.logaddexp(weight, part_weight)

        side, point = state["side"][rows], state["point"][rows]
        far, u = state["ends"][rows, 1 - side, _U], point[:, _U]
        state["ends"][rows, side] = point
        new, near, _ = state["marks"][rows, 0].swapaxes(0, 1)  # on either side of the seam
        old, part = state["total"][rows], state["part"][rows]
        depth = state["depth"][rows] + 1
        state["total"][rows], state["depth"][rows] = old + part, depth
        ends: Array = _turns(far, u, old + part) | (depth == self.max_depth)
        return ends | _turns(far, new, old + new) | _turns(near, u, part + near)

    def _end_trees(self, density: Density, rows: Array, warm: Array, log_weight: Array) -> None:
        state = self._arrays
        state["fresh"][rows] = True
        leaves = state["leaves"][rows]
        acceptance = state["accepted"][rows] / leaves
        if warm.any():
            adaptation.learn(
                state,
                rows[warm],
                acceptance[warm],
                target=self.target_accept,
                ends=self.ends,
                scale=density.prior_scale or 1.0,
            )
        if not warm.all():
            diverged = ~(log_weight > -DIVERGED)
            full = state["depth"][rows] == self.max_depth
            totals = np.stack((np.ones_like(leaves), acceptance, leaves, diverged, full), 1)
            state["totals"][rows[~warm]] += totals[~warm]

    # -- diagnostics -------------------------------------------------------------------

    def acceptance(self) -> Tensor:
        """(chains,): the mean acceptance statistic, of all points of the trees."""
        totals = self.state["totals"]
        return totals[:, 1] / totals[:, 0]

    def about(self) -> dict[str, Any]:
        totals = self.state["totals"]
        return {
            "step_size": self.state["step"].tolist(),  # in units of each chain's metric
            "leapfrogs": float(totals[:, 2].sum() / totals[:, 0].sum()),  # a transition
            "divergences": int(totals[:, 3].sum()),
            "at_max_depth": int(totals[:, 4].sum()),
        }


def _turns(one: Array, other: Array, total: Array) -> Array:  # (…, k) -> (…)
    """Whether momenta at either end point against their sum."""
    against: Array = np.minimum(np.vecdot(one, total), np.vecdot(other, total)) <= 0
    return against


def _bookkeeping(depth: int) -> tuple[Array, Array]:
    """Where leaf i of a subtree keeps its momenta, and at which places subtrees begin that end
    with it: of 2, 4, ... leaves, as many as i has trailing ones in binary.

    >>> slots, begins = _bookkeeping(3)  # leaves 0 to 3 of a subtree of 4
    >>> slots.tolist(), begins.astype(int).tolist()
    ([0, 0, 1, 1], [[0, 0, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]])
    """
    leaves = np.arange(1 << (depth - 1))[:, None]
    place = np.arange(depth)
    bits = (leaves >> place) & 1
    slots = bits[:, 1:].sum(1, keepdims=True)
    ones = bits.cumprod(1).sum(1, keepdims=True)
    return slots[:, 0], (place <= slots) & (place > slots - ones)
