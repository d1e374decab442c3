"""Hamiltonian Monte Carlo with trees that end at U-turns."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor

from lowland.errors import ConfigError
from lowland.records import Chain
from lowland.samplers import adaptation
from lowland.samplers.base import Job, MarkovChain
from lowland.samplers.density import Density

DIVERGED = 1000.0  # an energy error above it: the integrator has left the trajectory
MANY = 0.01  # a share of divergent transitions that is warned of
_Z, _U, _GRADIENT = 0, 1, 2  # what a point of a trajectory is
_FIRST, _BEFORE, _SUM = 0, 1, 2  # momenta kept of a subtree: its first, the one before, up to it


class NUTS(MarkovChain):
    r"""The no-U-turn sampler: \(H(z, p) = -\log p(z) + \tfrac12 p^T \Sigma p\) by leapfrog steps.

    Hoffman & Gelman 2014, as in Betancourt 2017 and Stan: a trajectory doubles, forward or back in
    time, until a subtree turns back on itself, \(p_\pm^T \Sigma \sum p \le 0\) with the sum over
    the subtree, checked across the halves of each subtree too. The next point is drawn from its
    points in proportion to \(e^{-H}\), later halves preferred.

    Trees are built without recursion, one leapfrog step of all chains at a time: a chain that ends
    its tree begins the next and waits for no other. Each keeps \(O(\text{max depth})\) momenta.
    In warm-up each chain learns a step size by dual averaging and a metric in doubling windows;
    after it nothing changes.

    Args:
        target_accept: mean acceptance statistic that step sizes are tuned to; nearer to 1 means
            smaller steps, for densities with narrow places.
        max_depth: of trees, which have at most 2^max_depth - 1 steps.
        dense: learns a full covariance, for strongly dependent coordinates; else variances.

    Raises:
        ConfigError: options out of range.

    >>> wide = Density(lambda z: -0.5 * (z / torch.tensor([1.0, 9.0])).square().sum(1), 2)
    >>> chain = NUTS().run(wide, Job(chains=4, samples=200))
    >>> chain.covariance.diagonal().sqrt().round(decimals=1)  # of 1/sqrt(2), 1/sqrt(1 + 1/81)
    tensor([0.7000, 1.0000], dtype=torch.float64)
    """

    name: ClassVar[str] = "nuts"
    warmup: ClassVar[int] = 300

    def __init__(
        self, *, target_accept: float = 0.8, max_depth: int = 10, dense: bool = False
    ) -> None:
        if not 0 < target_accept < 1:
            raise ConfigError(f"target_accept: expected a number in (0, 1), got {target_accept}.")
        if not 1 <= max_depth <= 15:
            raise ConfigError(f"max_depth: expected 1 to 15, got {max_depth}.")
        self.target_accept = target_accept
        self.max_depth = max_depth
        self.dense = dense

    def run(self, density: Density, job: Job) -> Chain:
        self.ends = adaptation.window_ends(self.warmup if job.warmup is None else job.warmup)
        self.slots, self.open = _bookkeeping(self.max_depth)
        chain = super().run(density, job)
        share = float(self.state["told"][:, 3].sum() / self.state["told"][:, 0].sum())
        if share > MANY:
            warnings.warn(
                f"{share:.1%} of the transitions diverged: where the density is narrow, or not a "
                "number, chains do not get, and draws are biased away from there; raise "
                f"target_accept (now {self.target_accept}), take a longer warm-up or a smaller "
                "prior_scale, or the sampler 'slice'.",
                stacklevel=2,
            )
        return chain

    # -- one leapfrog step -----------------------------------------------------------------------

    def begin(self, density: Density, z: Tensor, log_density: Tensor) -> dict[str, Tensor]:
        value, gradient = density.value_and_grad(z)
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
            "marks": z.new_zeros(n, self.max_depth, 3, k),
            "draw": z.new_zeros(n, 2, k),  # z and gradient
            "draw_value": zeros.clone(),
            "fresh": torch.ones(n, dtype=torch.bool),  # the next step begins a tree
            # for the acceptance statistic, and what to tell: of transitions after warm-up
            "accepted": zeros.clone(),
            "leaves": zeros.clone(),
            "told": z.new_zeros(n, 5),  # transitions, acceptance, leaves, divergent, at max_depth
        }

    def advance(self, density: Density, chains: Tensor, warming: Tensor) -> Tensor:
        state = self.state
        begins = state["fresh"][chains]
        if begins.any():
            self._begin_trees(chains[begins], warming[begins])
        every = len(chains) == len(state["z"])
        at: Any = slice(None) if every else chains  # views, where there is nothing to leave out

        z, before, gradient = state["point"][at].unbind(1)
        factor = state["factor"][at]
        step = (state["step"][at] * (2 * state["side"][at] - 1))[:, None]
        half = before + 0.5 * step * adaptation.force(factor, gradient)
        z = z + step * adaptation.velocity(factor, half)
        value, gradient = density.value_and_grad(z)
        u = half + 0.5 * step * adaptation.force(factor, gradient)
        log_weight = self._log_weight(value, u, state["energy"][at])
        searching = state["search"][at] > 0

        turned = self._add_leaf(at, before, z, u, gradient, value, log_weight)
        diverged = ~(log_weight > -DIVERGED)  # NaN too
        whole = state["leaf"][at] == 1 << state["depth"][at]
        stop = (turned | diverged) & ~searching
        whole &= ~stop & ~searching
        if whole.any():
            stop[whole] = self._add_subtree(chains[whole])
            self._begin_subtrees(chains[whole & ~stop])
        if searching.any():
            adaptation.search(state, chains[searching], log_weight[searching])
            state["fresh"][chains[searching]] = True
        if stop.any():
            self._end_trees(density, chains[stop], warming[stop], diverged[stop])
        return stop

    def _log_weight(self, value: Tensor, u: Tensor, energy: Tensor) -> Tensor:
        """How much energy was lost: the logarithm of a point's weight."""
        return (value - 0.5 * u.square().sum(1) + energy).nan_to_num(nan=-math.inf, neginf=-math.inf)

    # -- trees -----------------------------------------------------------------------------------

    def _begin_trees(self, rows: Tensor, warming: Tensor) -> None:
        """New momenta. Step sizes are those of warm-up, or after it their average."""
        state = self.state
        z = state["z"][rows]
        u = torch.randn(z.shape, generator=self.generator, dtype=z.dtype)
        point = torch.stack((z, u, state["gradient"][rows]), 1)
        state["ends"][rows] = point[:, None]
        state["total"][rows] = u
        state["weight"][rows] = 0.0
        state["energy"][rows] = 0.5 * u.square().sum(1) - state["log_density"][rows]
        state["depth"][rows] = 0
        state["accepted"][rows] = 0.0
        state["leaves"][rows] = 0.0
        state["fresh"][rows] = False
        settled = rows[~warming & (state["search"][rows] == 0)]
        if len(settled):
            state["step"][settled] = state["log_step"][settled].exp()
        self._begin_subtrees(rows)

    def _begin_subtrees(self, rows: Tensor) -> None:
        """As many points again, before or after those there are."""
        state = self.state
        side = torch.randint(2, (len(rows),), generator=self.generator)
        state["side"][rows] = side
        state["point"][rows] = state["ends"][rows, side]
        state["leaf"][rows] = 0
        state["part"][rows] = 0.0
        state["part_weight"][rows] = -math.inf

    def _add_leaf(
        self,
        at: Any,
        before: Tensor,
        z: Tensor,
        u: Tensor,
        gradient: Tensor,
        value: Tensor,
        log_weight: Tensor,
    ) -> Tensor:
        """The subtree's next point, as its draw by its weight; whether it ends one that turned."""
        state = self.state
        leaf = state["leaf"][at].clone()
        part = state["part"][at] + u
        # Every even leaf begins subtrees: its momenta go to the place of the last that has ended.
        marks = state["marks"][at]
        even = leaf % 2 == 0
        rows, slot = torch.arange(len(z)), self.slots[leaf]
        new = torch.stack((u, before, part), 1)
        marks[rows, slot] = torch.where(even[:, None, None], new, marks[rows, slot])
        if not isinstance(at, slice):  # a copy
            state["marks"][at] = marks

        weight = torch.logaddexp(state["part_weight"][at], log_weight)
        chance = torch.rand(len(z), generator=self.generator, dtype=z.dtype).log()
        take = self._take_leaf(chance, log_weight, weight)
        rest = ~take
        state["draw"][at] = torch.where(
            take[:, None, None], torch.stack((z, gradient), 1), state["draw"][at]
        )
        state["draw_value"][at] = torch.where(rest, state["draw_value"][at], value)
        state["point"][at] = torch.stack((z, u, gradient), 1)
        state["part"][at] = part
        state["part_weight"][at] = weight
        state["accepted"][at] += log_weight.clamp(max=0.0).exp()
        state["leaves"][at] += 1.0
        state["leaf"][at] = leaf + 1

        return self._turned(marks, u, part, self.open[leaf])

    def _take_leaf(self, chance: Tensor, log_weight: Tensor, weight: Tensor) -> Tensor:
        """Draws in proportion to weights, one after the other; `weight` is the sum so far."""
        return chance < log_weight - weight

    def _turned(self, marks: Tensor, u: Tensor, part: Tensor, opened: Tensor) -> Tensor:
        """Whether one of the subtrees that end here, and begin at `opened` marks, turned back."""
        first, before, sums = marks.unbind(2)  # (n, slots, k)
        whole = part[:, None] - sums + first  # of momenta from each mark to here
        here = u[:, None]
        turns = opened & _turns(first, here, whole)
        # The next mark begins its second half: from the first half to that point, and the other way
        late, early = first[:, 1:], before[:, 1:]
        second = whole[:, 1:]
        across = _turns(first[:, :-1], late, whole[:, :-1] - second + late)
        across |= _turns(early, here, second + early)
        turns[:, :-1] |= opened[:, :-1] & opened[:, 1:] & across
        return turns.any(1)

    def _add_subtree(self, rows: Tensor) -> Tensor:
        """Joins the tree with a subtree as large; whether that ends it."""
        state = self.state
        weight, part_weight = state["weight"][rows], state["part_weight"][rows]
        chance = torch.rand(len(rows), generator=self.generator, dtype=weight.dtype).log()
        take = chance < part_weight - weight  # beyond what weights alone would give
        taken = rows[take]
        state["z"][taken], state["gradient"][taken] = state["draw"][taken].unbind(1)
        state["log_density"][taken] = state["draw_value"][taken]
        state["weight"][rows] = torch.logaddexp(weight, part_weight)

        side = state["side"][rows]
        point, u = state["point"][rows], state["point"][rows, _U]
        far = state["ends"][rows, 1 - side, _U]
        state["ends"][rows, side] = point
        new, near, _ = state["marks"][rows, 0].unbind(1)  # on either side of the seam
        old, part = state["total"][rows], state["part"][rows]
        state["total"][rows] = old + part
        depth = state["depth"][rows] + 1
        state["depth"][rows] = depth
        return (
            _turns(far, u, old + part)
            | _turns(far, new, old + new)
            | _turns(near, u, part + near)
            | (depth == self.max_depth)
        )

    def _end_trees(
        self, density: Density, rows: Tensor, warming: Tensor, diverged: Tensor
    ) -> None:
        state = self.state
        state["fresh"][rows] = True
        acceptance = state["accepted"][rows] / state["leaves"][rows]
        if warming.any():
            adaptation.learn(
                state,
                rows[warming],
                acceptance[warming],
                target=self.target_accept,
                ends=self.ends,
                scale=density.prior_scale or 1.0,
            )
        if not warming.all():
            full = state["depth"][rows] == self.max_depth
            columns = (torch.ones_like(acceptance), acceptance, state["leaves"][rows])
            told = torch.stack((*columns, diverged.double(), full.double()), 1)
            state["told"][rows[~warming]] += told[~warming]

    # -- what there is to tell -------------------------------------------------------------------

    def acceptance(self) -> Tensor:
        """(chains,): the mean acceptance statistic, of all points of the trees."""
        told = self.state["told"]
        return told[:, 1] / told[:, 0]

    def about(self) -> dict[str, Any]:
        told = self.state["told"]
        return {
            "step_size": self.state["step"].tolist(),  # in units of each chain's metric
            "leapfrogs": float(told[:, 2].sum() / told[:, 0].sum()),  # a transition
            "divergences": int(told[:, 3].sum()),
            "at_max_depth": int(told[:, 4].sum()),
        }


def _turns(one: Tensor, other: Tensor, total: Tensor) -> Tensor:  # (…, k) -> (…)
    """Whether momenta at either end point against their sum."""
    return torch.minimum((one * total).sum(-1), (other * total).sum(-1)) <= 0


def _bookkeeping(depth: int) -> tuple[Tensor, Tensor]:
    """Where leaf i of a subtree keeps its momenta, and at which places subtrees begin that end
    with it: of 2, 4, ... leaves, as many as i has trailing ones in binary.

    >>> slots, begins = _bookkeeping(3)  # leaves 0 to 3 of a subtree of 4
    >>> slots.tolist(), begins.long().tolist()
    ([0, 0, 1, 1], [[0, 0, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]])
    """
    leaves = torch.arange(1 << (depth - 1))
    bits = (leaves[:, None] >> torch.arange(depth)) & 1
    slots = bits[:, 1:].sum(1)
    ones = bits.cumprod(1).sum(1)
    place = torch.arange(depth)
    return slots, (place <= slots[:, None]) & (place > (slots - ones)[:, None])
