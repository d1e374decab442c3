"""Weight matching: the order of one network's hidden units in which it is most like another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lowland.core import ParamLayout
from lowland.errors import LowlandError
from lowland.landscape.trace import Groups, Place

_ROUNDING = 1e-12  # a gain that is smaller than this share of the largest possible one is none

Solver = Callable[..., tuple[Any, Any]]


def permuted(tensor: Tensor, place: Place, order: list[Tensor], *, but: int = -1) -> Tensor:
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
    """The best of several starts, each improved group by group until nothing moves."""
    generator = torch.Generator().manual_seed(seed)
    matching = _Matching(groups, layout, w0, w1, generator)
    best = matching.improved(matching.identity(), iterations)
    for number in range(1 + restarts):
        found = matching.improved(matching.from_the_ends(shuffled=number > 0), iterations)
        if found.gain > best.gain + _ROUNDING * matching.scale():
            best = found
    return best


class _Matching:
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
        #: group -> (parameter, dimension of its place) wherever the group stands
        self.terms: list[list[tuple[str, int]]] = [[] for _ in self.sizes]
        for name, place in self.places.items():
            for dim, group in enumerate(place.groups):
                if group is not None:
                    self.terms[group].append((name, dim))

    # -- starts ----------------------------------------------------------------------------------

    def identity(self) -> list[Tensor]:
        return [torch.arange(size) for size in self.sizes]

    def from_the_ends(self, *, shuffled: bool) -> list[Tensor]:
        """Group after group, by the weights to what is matched already: inputs and outputs first.

        From the identity alone, weights between two groups that are both in disorder mislead.
        """
        order = self.identity()
        done: set[int] = set()
        while len(done) < len(order):
            shares = torch.tensor([-1.0 if g in done else self._share(g, done)
                                   for g in range(len(order))])  # fmt: skip
            candidates = (shares > 0).nonzero()[:, 0] if shuffled else shares.argmax()[None]
            if len(candidates) == 0:
                candidates = (shares == 0).nonzero()[:, 0]
            pick = torch.randint(len(candidates), (), generator=self.generator) if shuffled else 0
            group = int(candidates[pick])
            known = done if shares[group] > 0 else set(range(len(order)))
            order[group] = self._assigned(group, order, known)
            done.add(group)
        return order

    def _share(self, group: int, done: set[int]) -> float:
        """How much of what touches a group leads to groups that are done."""
        sizes = [self.target[name].numel() for name, _ in self.terms[group]]
        known = [self._known(name, dim, done) for name, dim in self.terms[group]]
        return sum(n for n, yes in zip(sizes, known, strict=True) if yes) / sum(sizes)

    def _known(self, name: str, dim: int, done: set[int]) -> bool:
        others = (g for d, g in enumerate(self.places[name].groups) if d != dim)
        return all(g is None or g in done for g in others)

    # -- coordinate descent ----------------------------------------------------------------------

    def improved(self, order: list[Tensor], iterations: int) -> Matched:
        order = list(order)
        every = set(range(len(order)))
        sweeps, moved = 0, True
        while moved and sweeps < iterations:
            moved = False
            for group in torch.randperm(len(order), generator=self.generator).tolist():
                found = self._assigned(group, order, every)
                if torch.equal(found, order[group]):
                    continue
                trial = [*order[:group], found, *order[group + 1 :]]
                # the assignment is exact but for weights from a group to itself, whose other side
                # it takes as it was: no step may lose
                more = self._agreement(group, trial) - self._agreement(group, order)
                if more > _ROUNDING * self._largest(group):
                    order, moved = trial, True
            sweeps += 1
        gain = self._total(order) - self._total(self.identity())
        return Matched(order, gain, sweeps)

    def _assigned(self, group: int, order: list[Tensor], known: set[int]) -> Tensor:
        """The order of one group that fits best, all others being as they are."""
        size = self.sizes[group]
        likeness = torch.zeros(size, size, dtype=torch.float64)
        for name, dim in self.terms[group]:
            if not self._known(name, dim, known):
                continue
            place = self.places[name]
            rows = self.target[name].reshape(place.shape).movedim(dim, 0).reshape(size, -1)
            columns = permuted(self.source[name], place, order, but=dim).movedim(dim, 0)
            likeness += (rows.double() @ columns.reshape(size, -1).double().T).cpu()
        _, found = self.solve(likeness.numpy(), maximize=True)
        return torch.from_numpy(found).long()

    def _agreement(self, group: int, order: list[Tensor]) -> float:
        """The inner product over the parameters that a group is part of."""
        return sum(self._product(name, order) for name in {name for name, _ in self.terms[group]})

    def _product(self, name: str, order: list[Tensor]) -> float:
        place = self.places[name]
        moved = permuted(self.source[name], place, order).double()
        return float((self.target[name].reshape(place.shape).double() * moved).sum())

    def _total(self, order: list[Tensor]) -> float:
        return sum(self._product(name, order) for name in self.places)

    def _largest(self, group: int) -> float:
        names = {name for name, _ in self.terms[group]}
        return sum(self._bound(name) for name in names)

    def scale(self) -> float:
        """The inner product is no larger than this."""
        return sum(self._bound(name) for name in self.places)

    def _bound(self, name: str) -> float:
        return float(self.target[name].double().norm() * self.source[name].double().norm())


def _solver() -> Solver:
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise LowlandError('alignment needs scipy: pip install "lowland[cli]".') from None
    solver: Solver = linear_sum_assignment
    return solver
