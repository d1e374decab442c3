"""Weight matching: the order of one network's hidden units in which it is most like another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lowland import checks
from lowland.alignment.trace import Groups, Place
from lowland.core import ParamLayout
from lowland.core.seeds import stream

ROUNDING = 1e-12  # a smaller share of the largest possible gain is rounding

Solver = Callable[..., tuple[Any, Any]]


def permute(tensor: Tensor, place: Place, order: Sequence[Tensor], *, skip_dim: int = -1) -> Tensor:
    """`tensor` in the shape of its place, all groups in their new order except along `skip_dim`.

    >>> permute(torch.tensor([[1, 2, 3]]), Place((3,), (0,)), [torch.tensor([2, 0, 1])])
    tensor([3, 1, 2])
    """
    tensor = tensor.reshape(place.shape)
    for dim, group in enumerate(place.groups):
        if group is not None and dim != skip_dim:
            tensor = tensor.index_select(dim, order[group].to(tensor.device))
    return tensor


@dataclass(frozen=True)
class MatchingResult:
    """`order[g][i]`: the i-th unit of group g. `gain`: the increase of the inner product."""

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
) -> MatchingResult:
    """The best of several starts, each improved group by group until no group changes.

    Raises:
        LowlandError: scipy is missing.
    """
    generator = stream("matching", seed)
    problem = MatchingProblem(groups, layout, w0, w1, generator)
    best = problem.improve(problem.identity(), iterations)
    for number in range(1 + restarts):
        start = problem.random_order() if number else problem.from_inputs_and_outputs()
        candidate = problem.improve(start, iterations)
        if candidate.gain > best.gain + ROUNDING * sum(problem.bounds.values()):
            best = candidate
    return best


class MatchingProblem:
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
        optimize = checks.package("scipy.optimize", extra="cli", purpose="alignment")
        self.solve: Solver = optimize.linear_sum_assignment
        #: upper bounds on the inner product of each parameter
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
        """The present order."""
        return [torch.arange(size) for size in self.sizes]

    def random_order(self) -> list[Tensor]:
        """A random order."""
        return [torch.randperm(size, generator=self.generator) for size in self.sizes]

    def from_inputs_and_outputs(self) -> list[Tensor]:
        """Orders group after group by its weights to groups that have an order: inputs and outputs
        have one from the start.

        Weights between two groups without an order are ignored. The next group is the one with the
        largest share of its weights to ordered groups.
        """
        order = self.identity()
        ordered: set[int] = set()
        all_groups = set(range(len(order)))
        while remaining := sorted(all_groups - ordered):
            shares = {group: self._share(group, ordered) for group in remaining}
            group = max(remaining, key=shares.__getitem__)
            usable = ordered if shares[group] > 0 else all_groups
            order[group] = self._best_order(group, order, usable)
            ordered.add(group)
        return order

    def _share(self, group: int, ordered: set[int]) -> float:
        """The share of a group's weights that lead to ordered groups."""
        sizes = [self.places[name].size for name, _ in self.terms[group]]
        usable = [self._others_ordered(name, dim, ordered) for name, dim in self.terms[group]]
        return sum(n for n, yes in zip(sizes, usable, strict=True) if yes) / sum(sizes)

    def _others_ordered(self, name: str, dim: int, ordered: set[int]) -> bool:
        others = (group for d, group in enumerate(self.places[name].groups) if d != dim)
        return all(group is None or group in ordered for group in others)

    # -- coordinate descent ----------------------------------------------------------------------

    def improve(self, order: list[Tensor], iterations: int) -> MatchingResult:
        """Passes over the groups, in random order, until no group changes."""
        order = list(order)
        all_groups = set(range(len(order)))
        sweeps, changed = 0, True
        while changed and sweeps < iterations:
            changed = False
            for group in torch.randperm(len(order), generator=self.generator).tolist():
                best = self._best_order(group, order, all_groups)
                if torch.equal(best, order[group]):
                    continue
                trial = [*order[:group], best, *order[group + 1 :]]
                names = dict.fromkeys(name for name, _ in self.terms[group])
                # the assignment is optimal except where weights lead from a group to itself: it
                # takes their other side in the old order; a step that loses is not made
                gain = sum(self._inner(n, trial) - self._inner(n, order) for n in names)
                if gain > ROUNDING * sum(self.bounds[name] for name in names):
                    order, changed = trial, True
            sweeps += 1
        identity = self.identity()
        gain = sum(self._inner(n, order) - self._inner(n, identity) for n in self.places)
        return MatchingResult(order, gain, sweeps)

    def _best_order(self, group: int, order: list[Tensor], ordered: set[int]) -> Tensor:
        """The order of one group that fits best, the orders of all others fixed."""
        size = self.sizes[group]
        similarity = torch.zeros(size, size, dtype=torch.float64)  # of units i of w0 and j of w1
        for name, dim in self.terms[group]:
            if not self._others_ordered(name, dim, ordered):
                continue
            place = self.places[name]
            rows = self.target[name].reshape(place.shape).movedim(dim, 0).reshape(size, -1)
            others = permute(self.source[name], place, order, skip_dim=dim)
            columns = others.movedim(dim, 0).reshape(size, -1)
            similarity += (rows.double() @ columns.double().T).cpu()
        _, best = self.solve(similarity.numpy(), maximize=True)
        return torch.from_numpy(best).long()

    def _inner(self, name: str, order: list[Tensor]) -> float:
        """The inner product of a parameter of w0 with that of w1 in this order."""
        place = self.places[name]
        source = permute(self.source[name], place, order).double()
        return float((self.target[name].reshape(place.shape).double() * source).sum())
