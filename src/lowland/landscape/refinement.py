"""Adaptive refinement of a grid: points are evaluated only where interpolated colours are wrong.

Interpolation is linear in the classic colours, which are the logarithm of the height above the
minimum, by thin plates through the nearest evaluated points. The error of each evaluated point,
predicted from the others alone, and the distance to them estimate the error nearby.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lowland.records.shades import classic_of, classic_shade

TOLERANCE = 0.02  # of the colour scale
_COARSE = 10  # steps of the first grid along an axis
_NEIGHBOURS = 24  # evaluated points that a value is interpolated from
_ERROR_NEIGHBOURS = 4  # evaluated points that its error is estimated from
_GROWTH = 0.25  # of the evaluated points: at most so many more in a round
_BLOCK = 512  # points that are interpolated together


class Scale:
    """The colours of a metric, and the smooth function u of its values that is interpolated.

    u = log(v - m + e^alpha) over the span of the colours, m being the lowest value: a step of 0.01
    in u is at most one in colour.

    >>> scale = Scale("loss", torch.tensor([0.0, 1.0, 4.0]))
    >>> scale.value(scale.smooth(torch.tensor([0.5, 2.0])))
    tensor([0.5000, 2.0000])
    """

    def __init__(self, name: str, values: Tensor) -> None:
        vmax, alpha = classic_of(name) or (math.inf, None)
        finite = values[torch.isfinite(values)].double()
        if not vmax > float(finite.min()):  # then the picture shows all values
            vmax = math.inf
        finite = finite.clamp_max(vmax)
        self.vmax = vmax
        self.low, self.high = float(finite.min()), float(finite.max())
        most = math.log(self.high - self.low) if self.high > self.low else 0.0
        self.alpha = alpha if alpha is not None and alpha < most - 1 else most - 6.6
        self.span = most - self.alpha

    def smooth(self, values: Tensor) -> Tensor:
        """Maps finite values to u."""
        return (values - self.low + math.exp(self.alpha)).log() / self.span

    def value(self, u: Tensor) -> Tensor:
        """Maps u to values, none below the minimum."""
        return ((u * self.span).exp() - math.exp(self.alpha)).clamp_min(0) + self.low

    def shade(self, u: Tensor) -> Tensor:
        """Maps u to colours in [0, 1]."""
        shades = classic_shade(
            self.value(u).numpy(), vmax=self.vmax, alpha=self.alpha, low=self.low, high=self.high
        )
        return torch.from_numpy(shades)


def coarse(shape: tuple[int, ...], marks: Tensor) -> list[int]:
    """Indices of the first points: a coarse grid, every fourth along 41, and those around marks.

    Args:
        shape: (m, n) or (n,). marks: (q, 2) or (q, 1), in steps of the grid, x first.
    """
    selected = torch.zeros(shape, dtype=torch.bool)
    selected[torch.meshgrid(*map(_coarse_ticks, shape), indexing="ij")] = True
    corners = torch.cartesian_prod(*[torch.tensor([0, 1])] * len(shape)).reshape(-1, len(shape))
    for mark in marks.flip(1):  # y first, as in grids
        for position in mark.floor().long() + corners:
            if bool((position >= 0).all()) and bool((position < torch.tensor(shape)).all()):
                selected[tuple(position.tolist())] = True
    return selected.reshape(-1).nonzero()[:, 0].tolist()


def _coarse_ticks(n: int) -> Tensor:
    step = max(1, math.ceil((n - 1) / _COARSE))
    ticks: Tensor = torch.cat([torch.arange(0, n, step), torch.tensor([n - 1])]).unique()
    return ticks


def lattice(shape: tuple[int, ...]) -> Tensor:
    """Positions of all points in steps of the grid, (points, dimensions) float64."""
    axes = [torch.arange(n, dtype=torch.float64) for n in shape]
    return torch.cartesian_prod(*axes).reshape(math.prod(shape), len(shape))


@dataclass(frozen=True)
class Samples:
    """The points of a grid, and the values of a metric at those evaluated so far.

    `positions`: (N, d), in steps of the grid. `values`: (N,). `evaluated`: (N,) bool.
    """

    name: str  # of the metric
    positions: Tensor
    values: Tensor
    evaluated: Tensor

    @property
    def remaining(self) -> Tensor:
        """Indices of the points that are not evaluated."""
        return (~self.evaluated).nonzero()[:, 0]

    @property
    def finite(self) -> Tensor:
        """(N,) bool: evaluated, and neither NaN nor infinite."""
        return self.evaluated & torch.isfinite(self.values)

    def next_points(self, tolerance: float) -> list[int]:
        """Indices of the points to evaluate next, well apart; none where all colours are right."""
        remaining = self.remaining
        if len(remaining) == 0:
            return []
        errors = self._errors(remaining)
        positions = self.positions[remaining]
        nodes = self.positions[self.evaluated]
        most = max(8, int(_GROWTH * len(nodes)))
        spacing = torch.cat([torch.cdist(p, nodes).amin(1) for p in positions.split(_BLOCK)])
        free = errors > tolerance
        selected: list[int] = []
        for i in errors.argsort(descending=True, stable=True).tolist():
            if len(selected) == most or not errors[i] > tolerance:
                break
            if free[i]:
                selected.append(int(remaining[i]))
                # this point changes the estimates of those that are nearer to it than its nodes are
                free &= (positions - positions[i]).norm(dim=1) >= spacing[i]
        return sorted(selected)

    def fill(self) -> Tensor:
        """All values, interpolated where not evaluated; NaN where all neighbours are NaN."""
        remaining, finite = self.remaining, self.finite
        out = self.values.clone()
        if len(remaining) == 0 or not bool(finite.any()):
            return out
        _, none_finite = self._finite_neighbours(remaining)
        scale = Scale(self.name, self.values[finite])
        smooth = scale.smooth(self.values[finite])
        u, _ = interpolate(self.positions[remaining], self.positions[finite], smooth)
        out[remaining] = torch.where(none_finite, math.nan, scale.value(u))
        return out

    def _errors(self, remaining: Tensor) -> Tensor:
        """Estimated errors, in colours, of the points that remain; infinite beside NaN.

        The leave-one-out errors of the nearest evaluated points, times the square of the ratio of
        distances.
        """
        finite = self.finite
        errors = torch.full((len(remaining),), math.inf, dtype=torch.float64)
        all_finite, none_finite = self._finite_neighbours(remaining)
        errors[none_finite] = 0.0  # between NaN alone: it stays NaN
        if int(finite.sum()) <= self.positions.shape[1] + 2:  # too few for a plane
            return errors
        scale = Scale(self.name, self.values[finite])
        nodes, u = self.positions[finite], scale.smooth(self.values[finite])
        predicted, spacing = interpolate(nodes, nodes, u, leave_out=True)
        misses = (scale.shade(predicted) - scale.shade(u)).abs()
        for start in range(0, len(remaining), _BLOCK):
            block = slice(start, start + _BLOCK)
            distances = torch.cdist(self.positions[remaining[block]], nodes)
            distance, index = _nearest(distances, _ERROR_NEIGHBOURS)
            ratio = (distance / spacing[index]).clamp_max(2)
            estimate = (misses[index] * ratio.square()).amax(1)
            errors[block] = torch.where(all_finite[block], estimate, errors[block])
        return errors

    def _finite_neighbours(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the evaluated neighbours of points are all finite, and whether none is."""
        nodes = self.positions[self.evaluated]
        finite = torch.isfinite(self.values[self.evaluated])
        if bool(finite.all()):
            yes = torch.ones(len(indices), dtype=torch.bool)
            return yes, ~yes
        hits = []
        for block in indices.split(_BLOCK):
            _, index = _nearest(torch.cdist(self.positions[block], nodes), 8)
            hits.append(finite[index])
        hit = torch.cat(hits)
        return hit.all(1), ~hit.any(1)


def interpolate(
    points: Tensor,  # (Q, d)
    nodes: Tensor,  # (N, d)
    values: Tensor,  # (N,)
    *,
    leave_out: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Thin plates through the nearest nodes, (Q,), and the distance of the nearest one, (Q,).

    \(f(x) = \sum_i a_i \phi(|x - x_i|) + b + c \cdot x\) with \(\phi(r) = r^2 \ln r\), the
    surface of least bending (Duchon 1977), from 24 nodes for each point: exact for planes.

    SciPy's `RBFInterpolator` computes the same, but cannot leave one out: for 2,545 nodes, one call
    a node, that takes 6.1 s, here 0.8 s; and scans need no SciPy.

    Args:
        leave_out: the points are the nodes, and each is predicted from the others alone.

    >>> nodes = torch.tensor([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 2.0]]).double()
    >>> plane = nodes @ torch.tensor([1.0, 4.0]).double()
    >>> interpolate(torch.tensor([[1.0, 0.5]]).double(), nodes, plane)
    (tensor([3.], dtype=torch.float64), tensor([1.1180], dtype=torch.float64))
    """
    count = min(_NEIGHBOURS, len(nodes) - leave_out)
    interpolated, nearest = [], []
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK]
        distance = torch.cdist(block, nodes)
        if leave_out:
            own = torch.arange(len(block))
            distance[own, start + own] = math.inf
        distance, index = _nearest(distance, count)
        interpolated.append(_thin_plates(block, nodes[index], values[index], distance[:, -1]))
        nearest.append(distance[:, 0])
    return torch.cat(interpolated), torch.cat(nearest)


def _thin_plates(points: Tensor, nodes: Tensor, values: Tensor, size: Tensor) -> Tensor:
    """The plates' values at points (Q, d), each through its own nodes (Q, k, d)."""
    q, k, d = nodes.shape
    x = (nodes - points[:, None]) / size[:, None, None]  # the point itself is the origin
    flat = torch.cat([torch.ones_like(x[..., :1]), x], dim=2)  # (Q, k, 1 + d)
    system = x.new_zeros(q, k + 1 + d, k + 1 + d)
    system[:, :k, :k] = _phi((x[:, :, None] - x[:, None]).square().sum(-1))
    system[:, :k, k:] = flat
    system[:, k:, :k] = flat.mT
    right = torch.cat([values, values.new_zeros(q, 1 + d)], dim=1)
    solution, _ = torch.linalg.solve_ex(system, right)
    plates = (solution[:, :k] * _phi(x.square().sum(-1))).sum(1) + solution[:, k]
    # nodes on a line leave the tilt across it open: then the nearest one's value
    spread = values.amax(1) - values.amin(1)
    good = torch.isfinite(plates) & ((plates - values[:, 0]).abs() <= 10 * spread)
    return torch.where(good, plates, values[:, 0])


def _phi(square: Tensor) -> Tensor:
    return 0.5 * torch.xlogy(square, square)


def _nearest(distance: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest of each row in order; of equal ones those that come first."""
    order = distance.sort(dim=1, stable=True)
    return order.values[:, :k], order.indices[:, :k]


Evaluate = Callable[[list[int]], Tensor]


def refine(
    name: str,
    shape: tuple[int, ...],
    marks: Tensor,
    evaluate: Evaluate,
    *,
    tolerance: float,
) -> Samples:
    """Evaluates points of a grid until the colours of `name` are right.

    Args:
        evaluate: takes indices of points, returns their values.
    """
    positions = lattice(shape)
    evaluated = torch.zeros(len(positions), dtype=torch.bool)
    values = torch.full((len(positions),), math.nan, dtype=torch.float64)
    samples = Samples(name, positions, values, evaluated)
    points = coarse(shape, marks)
    while points:
        values[points] = evaluate(points)
        evaluated[points] = True
        points = samples.next_points(tolerance)
    return samples
