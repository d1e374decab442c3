"""Weight matching: the order of one network's hidden units in which it is most like another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lowland.core import ParamLayout
from lowland.core.seeds import stream
from lowland.errors import LowlandError
from lowland.landscape.trace import Groups, Place

ROUNDING = 1e-12  # a gain that is smaller than this share of the largest possible one is none

Solver = Callable[..., tuple[Any, Any]]


def permuted(tensor: Tensor, place: Place, order: Sequence[Tensor], *, but: int = -1) -> Tensor:
    """`tensor` in the shape of its place, all groups in their new order but dimension `but`.

    >>> permuted(torch.tensor([[1, 2, 3]]), Place((3,), (0,)), [torch.tensor([2, 0, 1])])
    tensor([3, 1, 2])
    """
    tensor = tensor.reshape(place.shape)
    for dim, group in enumerate(place.groups):
        if group is not None and dim != but:
            tensor = tensor.index_select(dim, order[group].to(tensor.device))
    return tensor


@dataclass(frozen=True)
class Matched:
    """`order[g][i]`: which unit of group g comes i-th. `gain`: in the inner product."""

    order: list[Tensor]
    gain: float
    sweeps: int


def match(
    groups: Groups,
    layout: ParamLayout,
    w0: Tensor,  # (P,)
    w1: Tensor,  # (P,)
    *,
    restarts: int,
    iterations: int,
    seed: int,
) -> Matched:
    """The best of several starts, each improved group by group until nothing moves.

    Raises:
        LowlandError: scipy is missing.
    """
    generator = stream("matching", seed)
    matching = Matching(groups, layout, w0, w1, generator)
    best = matching.improved(matching.identity(), iterations)
    for number in range(1 + restarts):
        start = matching.shuffled() if number else matching.from_the_ends()
        found = matching.improved(start, iterations)
        if found.gain > best.gain + ROUNDING * sum(matching.bounds.values()):
            best = found
    return best


class Matching:
    """The inner product as a function of the order of each group."""

    def __init__(
        self,
        groups: Groups,
        layout: ParamLayout,
        w0: Tensor,
        w1: Tensor,
        generator: torch.Generator,
    ) -> None:
        self.places = groups.parameters
        self.sizes = groups.sizes
        self.target = layout.unflatten(w0)
        self.source = layout.unflatten(w1)
        self.generator = generator
        self.solve = _solver()
        #: no inner product of a parameter is larger
        self.bounds = {
            name: float(self.target[name].double().norm() * self.source[name].double().norm())
            for name in self.places
        }
        #: group -> (parameter, dimension of its place) wherever the group stands
        self.terms: list[list[tuple[str, int]]] = [[] for _ in self.sizes]
        for name, place in self.places.items():
            for dim, group in enumerate(place.groups):
                if group is not None:
                    self.terms[group].append((name, dim))

    # -- starts ----------------------------------------------------------------------------------

    def identity(self) -> list[Tensor]:
        """The order that is there."""
        return [torch.arange(size) for size in self.sizes]

    def shuffled(self) -> list[Tensor]:
        """A random order."""
        return [torch.randperm(size, generator=self.generator) for size in self.sizes]

    def from_the_ends(self) -> list[Tensor]:
        """Group after group, by its weights to what is in order already: inputs and outputs first.

        Between two groups that are both in disorder weights say nothing, and are left out. The next
        is the group that most is known of.
        """
        order = self.identity()
        done: set[int] = set()
        every = set(range(len(order)))
        while rest := sorted(every - done):
            shares = {group: self._share(group, done) for group in rest}
            group = max(rest, key=shares.__getitem__)
            order[group] = self._assigned(group, order, done if shares[group] > 0 else every)
            done.add(group)
        return order

    def _share(self, group: int, done: set[int]) -> float:
        """How much of what touches a group leads to groups that are done."""
        sizes = [self.places[name].size for name, _ in self.terms[group]]
        known = [self._known(name, dim, done) for name, dim in self.terms[group]]
        return sum(n for n, yes in zip(sizes, known, strict=True) if yes) / sum(sizes)

    def _known(self, name: str, dim: int, done: set[int]) -> bool:
        others = (group for d, group in enumerate(self.places[name].groups) if d != dim)
        return all(group is None or group in done for group in others)

    # -- coordinate descent ----------------------------------------------------------------------

    def improved(self, order: list[Tensor], iterations: int) -> Matched:
        """Passes over the groups, in random order, until none moves."""
        order = list(order)
        every = set(range(len(order)))
        sweeps, moves = 0, True
        while moves and sweeps < iterations:
            moves = False
            for group in torch.randperm(len(order), generator=self.generator).tolist():
                found = self._assigned(group, order, every)
                if torch.equal(found, order[group]):
                    continue
                trial = [*order[:group], found, *order[group + 1 :]]
                names = dict.fromkeys(name for name, _ in self.terms[group])
                # the assignment is the best there is, but where weights lead from a group to
                # itself, whose other side it takes as it was: no step may lose
                gain = sum(self._inner(n, trial) - self._inner(n, order) for n in names)
                if gain > ROUNDING * sum(self.bounds[name] for name in names):
                    order, moves = trial, True
            sweeps += 1
        identity = self.identity()
        gain = sum(self._inner(n, order) - self._inner(n, identity) for n in self.places)
        return Matched(order, gain, sweeps)

    def _assigned(self, group: int, order: list[Tensor], known: set[int]) -> Tensor:
        """The order of one group that fits best, all others being as they are."""
        size = self.sizes[group]
        likeness = torch.zeros(size, size, dtype=torch.float64)  # of units i of w0 and j of w1
        for name, dim in self.terms[group]:
            if not self._known(name, dim, known):
                continue
            place = self.places[name]
            rows = self.target[name].reshape(place.shape).movedim(dim, 0).reshape(size, -1)
            others = permuted(self.source[name], place, order, but=dim)
            columns = others.movedim(dim, 0).reshape(size, -1)
            likeness += (rows.double() @ columns.double().T).cpu()
        _, found = self.solve(likeness.numpy(), maximize=True)
        return torch.from_numpy(found).long()

    def _inner(self, name: str, order: list[Tensor]) -> float:
        """The inner product of one parameter of w0 and of w1 in this order."""
        place = self.places[name]
        moved = permuted(self.source[name], place, order).double()
        return float((self.target[name].reshape(place.shape).double() * moved).sum())


def _solver() -> Solver:
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise LowlandError('alignment needs scipy: pip install "lowland[cli]".') from None
    solver: Solver = linear_sum_assignment
    return solver
