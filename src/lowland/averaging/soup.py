"""Model soups: one network, the average of several, by three recipes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor

from lowland import checks
from lowland.averaging.learned_weights import held_out_nlls, learned_weights
from lowland.averaging.members import MemberPoints, read_members
from lowland.averaging.selection import SelectedAverage
from lowland.averaging.validation import Validation
from lowland.averaging.weighted_mean import WeightedMean, weighted_mean
from lowland.core import LossSurface, Point
from lowland.core.options import EvalKeywords
from lowland.errors import ConfigError
from lowland.keywords import hinted
from lowland.posteriors import PointMass
from lowland.progress import Progress, reporting
from lowland.records import Table

KINDS = ("uniform", "greedy", "learned")


@dataclass(frozen=True, eq=False)
class Soup(SelectedAverage):
    """An average of networks: `predict`, `evaluate` and the like take it as a posterior.

    Attributes:
        point: the average, weights and buffers.
        mixing_weights: (M,), the share of each member, float64; 0 for those left out.
        names: of the members.
        kind: "uniform", "greedy" or "learned"; learned weights that are not better on held-out
            examples are "uniform".
        selection: the members and the soup, compared with the best member, which is the default;
            learned weights by the NLL on held-out examples.
        evaluations, gradients: passes over the validation examples, without and with a gradient.
    """

    point: Point
    mixing_weights: Tensor
    names: list[str]
    kind: str

    @property
    def table(self) -> Table:
        """One row per member, and last the soup: its mixing weight, and as `Selection.table`."""
        weights = torch.cat([self.mixing_weights, self.mixing_weights.new_ones(1)])
        columns = self.selection.table.columns
        return Table({"candidate": self.selection.names, "weight": weights} | columns)

    def posterior(self) -> PointMass:
        """All mass on the average."""
        return PointMass(self.point)


@hinted
def soup(
    members: Any,
    surface: LossSurface,
    loader: Iterable[Any],
    *,
    kind: str = "uniform",
    groups: Sequence[Any] | Tensor | None = None,
    steps: int = 30,
    seed: int = 0,
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> Soup:
    r"""The average \(\sum_m c_m w_m\) of networks that share a start (Wortsman et al. 2022).

    - "uniform": \(c_m = 1 / M\).
    - "greedy": in the order of their validation NLL, a member is added to the uniform average
      where that lowers the NLL of the average.
    - "learned": c on the simplex with the lowest validation NLL, by L-BFGS through the network.
      c is also learned from each half of the examples and evaluated on the other; where the NLL
      there is not lower than that of the uniform average by more than one paired standard error,
      the soup is uniform.

    BatchNorm statistics are those of each average, estimated from the surface's own examples.
    Members are read one by one, so that those on disk are never held together. The NLL of a greedy
    soup is that of a choice on these examples, so that it is somewhat low; report that of others.

    Args:
        members: a `Trajectory`, checkpoint files, a pattern or a folder of them, a posterior with
            finitely many members, (M, P), an iterable of networks, or a dict of these by name.
        surface: model, task and the examples for BatchNorm statistics.
        loader: labelled validation examples.
        kind: the recipe.
        groups: (N,), a label for each validation example, where examples are not independent:
            standard errors are clustered, and halves have whole groups.
        steps: of L-BFGS, for "learned". seed: of the halves.
        progress: True for a bar, or a callable of (done, total): passes over the examples.
        options: how networks are evaluated, see `EvalOptions`.

    Raises:
        ConfigError: no member, one with the name of the soup, an unknown kind. DataError: fewer
            than two validation examples, or examples without targets. LayoutError: a member of
            another model. NonFiniteError: a member with NaN or infinite weights, or no finite NLL.

    >>> from lowland.core import Regression
    >>> data = [(torch.ones(4, 1), torch.tensor([[0.9], [1.1], [1.0], [1.2]]))]
    >>> net = torch.nn.Linear(1, 1, bias=False)
    >>> surface = LossSurface(net, Regression(noise_variance=0.01), data)
    >>> result = soup(torch.tensor([[0.5], [1.5], [4.0]]), surface, surface.data, kind="greedy")
    >>> result.point.weights, result.mixing_weights
    (tensor([1.]), tensor([0.5000, 0.5000, 0.0000], dtype=torch.float64))
    """
    if kind not in KINDS:
        raise ConfigError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}.")
    steps = checks.whole("steps", steps, least=1)
    points = read_members(surface, members)
    total = {"uniform": len(points) + 1, "greedy": 2 * len(points)}.get(kind)
    with reporting(progress, "soup") as report:
        validation = Validation(
            surface, loader, groups=groups, seed=seed, report=report, total=total, **options
        )
        nlls = {name: validation.nlls(points[i]) for i, name in enumerate(points.names)}
        means = torch.stack([nll.mean() for nll in nlls.values()])
        if kind == "greedy":
            weights, nll = _greedy(points, means, validation)
        else:
            weights = torch.full((len(points),), 1 / len(points), dtype=torch.float64)
            nll = validation.nlls(weighted_mean(points, weights))
        if kind == "learned":
            held_out = held_out_nlls(validation, points, steps=steps)
            kind = validation.select({"uniform": nll, "learned": held_out}, "uniform").best
            if kind == "learned":
                weights, nll = learned_weights(validation, points, steps=steps), held_out
    name = f"{kind} soup"
    if name in nlls:
        raise ConfigError(f"members: {name!r} is the name of the result; choose another name.")
    return Soup(
        validation.select({**nlls, name: nll}, default=points.names[int(means.argmin())]),
        validation.evaluations,
        validation.gradients,
        weighted_mean(points, weights),
        weights,
        points.names,
        kind,
    )


def _greedy(points: MemberPoints, means: Tensor, validation: Validation) -> tuple[Tensor, Tensor]:
    """The mixing weights (M,) and the NLL of each item of the average."""
    mean, members, lowest = WeightedMean(), [], None
    for i in means.argsort(stable=True).tolist():
        trial = mean.with_point(points[i])
        nll = validation.nlls(trial.point)
        if lowest is None or nll.mean() < lowest.mean():
            mean, lowest = trial, nll
            members.append(i)
    weights = torch.zeros(len(points), dtype=torch.float64)
    weights[members] = 1 / len(members)
    assert lowest is not None
    return weights, lowest
