"""Fewer points for the same picture: where the interpolated colours would be wrong, and only there.

Values are interpolated as the classic colours show them, in the logarithm of what lies above the
lowest, by thin plates through the nearest known points. Each known point is also predicted from the
others alone: what that misses, and how far it had to reach, says how wrong the picture is nearby.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lowland.records.shades import classic_of, classic_shade

TOLERANCE = 0.02  # of the colour scale
_COARSE = 10  # steps of the first grid along an axis
_NEAR = 24  # points that a value is interpolated from
_ASKED = 4  # of them that say how wrong it may be
_GROWTH = 0.25  # of the known points: what a round may add
_BLOCK = 512  # points that are interpolated together


class Scale:
    """A figure's colours, and the smooth function of its values that is interpolated.

    u = log(v - m + e^alpha) over the span of the colours, m being the lowest value: a step of 0.01
    in u is at most one in colour.

    >>> scale = Scale("loss", torch.tensor([0.0, 1.0, 4.0]))
    >>> scale.value(scale.smooth(torch.tensor([0.5, 2.0])))
    tensor([0.5000, 2.0000])
    """

    def __init__(self, name: str, values: Tensor) -> None:
        vmax, alpha = classic_of(name) or (math.inf, None)
        finite = values[torch.isfinite(values)].double()
        if not vmax > float(finite.min()):  # the picture shows all, then
            vmax = math.inf
        shown = finite.clamp_max(vmax)
        self.vmax = vmax
        self.low, self.high = float(shown.min()), float(shown.max())
        most = math.log(self.high - self.low) if self.high > self.low else 0.0
        self.alpha = alpha if alpha is not None and alpha < most - 1 else most - 6.6
        self.span = most - self.alpha

    def smooth(self, values: Tensor) -> Tensor:
        """u of finite values."""
        return (values - self.low + math.exp(self.alpha)).log() / self.span

    def value(self, u: Tensor) -> Tensor:
        """The values of u, none below the lowest that is known."""
        return ((u * self.span).exp() - math.exp(self.alpha)).clamp_min(0) + self.low

    def shade(self, u: Tensor) -> Tensor:
        """The colours of u, in [0, 1]."""
        shades = classic_shade(
            self.value(u).numpy(), vmax=self.vmax, alpha=self.alpha, low=self.low, high=self.high
        )
        return torch.from_numpy(shades)


def coarse(shape: tuple[int, ...], marks: Tensor) -> list[int]:
    """Numbers of the points to begin with: every fourth along 41, and those around the marks.

    Args:
        shape: (m, n) or (n,). marks: (q, 2) or (q, 1), in steps of the grid, x first.
    """
    chosen = torch.zeros(shape, dtype=torch.bool)
    rows = [_every(n) for n in shape]
    chosen[torch.meshgrid(*rows, indexing="ij")] = True
    for mark in marks.flip(1):  # y first, as in figures
        low = mark.floor().long()
        for corner in torch.cartesian_prod(*[torch.tensor([0, 1])] * len(shape)).reshape(
            -1, len(shape)
        ):
            at = low + corner
            if bool((at >= 0).all()) and bool((at < torch.tensor(shape)).all()):
                chosen[tuple(at.tolist())] = True
    return chosen.reshape(-1).nonzero()[:, 0].tolist()


def _every(n: int) -> Tensor:
    step = max(1, math.ceil((n - 1) / _COARSE))
    every: Tensor = torch.cat([torch.arange(0, n, step), torch.tensor([n - 1])]).unique()
    return every


def lattice(shape: tuple[int, ...]) -> Tensor:
    """Places of all points in steps of the grid, (points, dimensions) float64."""
    axes = [torch.arange(n, dtype=torch.float64) for n in shape]
    return torch.cartesian_prod(*axes).reshape(math.prod(shape), len(shape))


def wanted(name: str, places: Tensor, values: Tensor, known: Tensor, tolerance: float) -> list[int]:
    """Numbers of the points to evaluate next, far enough apart; empty where the picture is right.

    Args:
        places: (N, d). values: (N,), of the known ones. known: (N,) bool.
    """
    left = (~known).nonzero()[:, 0]
    if len(left) == 0:
        return []
    wrong = _wrong(name, places, values, known, left)
    most = max(8, int(_GROWTH * int(known.sum())))
    reach = torch.cat([torch.cdist(p, places[known]).amin(1) for p in places[left].split(_BLOCK)])
    free = wrong > tolerance
    chosen: list[int] = []
    for i in wrong.argsort(descending=True, stable=True).tolist():
        if len(chosen) == most or not wrong[i] > tolerance:
            break
        if free[i]:
            chosen.append(int(left[i]))
            # what lies nearer than the known ones do is judged again when this one is known
            free &= (places[left] - places[left[i]]).norm(dim=1) >= reach[i]
    return sorted(chosen)


def _wrong(name: str, places: Tensor, values: Tensor, known: Tensor, left: Tensor) -> Tensor:
    """How wrong, in colours, each point that is left may be; beside NaN and infinity: infinitely.

    What the nearest known points are mispredicted by grows with the square of the distance that
    they are predicted over.
    """
    finite = known & torch.isfinite(values)
    kept = torch.full((len(left),), math.inf, dtype=torch.float64)
    alike, surrounded = _beside(places, values, known, left)
    kept[surrounded] = 0.0  # nothing but NaN around: it is left NaN
    if int(finite.sum()) <= _needed(places):
        return kept
    scale = Scale(name, values[finite])
    at, u = places[finite], scale.smooth(values[finite])
    predicted, apart = interpolate(at, at, u, leave_out=True)
    error = (scale.shade(predicted) - scale.shade(u)).abs()
    for start in range(0, len(left), _BLOCK):
        part = slice(start, start + _BLOCK)
        distance, index = _nearest(torch.cdist(places[left[part]], at), _ASKED)
        share = (distance / apart[index]).clamp_max(2).square()
        found = (error[index] * share).amax(1)
        kept[part] = torch.where(alike[part], found, kept[part])
    return kept


def _beside(places: Tensor, values: Tensor, known: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the known neighbours of points are all finite, and whether none of them is."""
    at, finite = places[known], torch.isfinite(values[known])
    if bool(finite.all()):
        every = torch.ones(len(left), dtype=torch.bool)
        return every, ~every
    hits = []
    for part in left.split(_BLOCK):
        _, index = _nearest(torch.cdist(places[part], at), 8)
        hits.append(finite[index])
    hit = torch.cat(hits)
    return hit.all(1), ~hit.any(1)


def filled(name: str, places: Tensor, values: Tensor, known: Tensor) -> Tensor:
    """Values (N,) with those of unknown points interpolated, NaN where all neighbours are."""
    left = (~known).nonzero()[:, 0]
    out = values.clone()
    finite = known & torch.isfinite(values)
    if len(left) == 0 or not bool(finite.any()):
        return out
    _, surrounded = _beside(places, values, known, left)
    scale = Scale(name, values[finite])
    u, _ = interpolate(places[left], places[finite], scale.smooth(values[finite]))
    out[left] = torch.where(surrounded, math.nan, scale.value(u))
    return out


def interpolate(
    at: Tensor,  # (Q, d)
    known: Tensor,  # (N, d)
    values: Tensor,  # (N,)
    *,
    leave_out: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Thin plates through the nearest known points, (Q,), and the distance of the nearest, (Q,).

    \(f(x) = \sum_i a_i \phi(|x - x_i|) + b + c \cdot x\) with \(\phi(r) = r^2 \ln r\), the
    surface of least bending (Duchon 1977), from 24 points for each: exact for planes.

    Args:
        leave_out: the points are the known ones, and each is predicted from the others alone.

    >>> known = torch.tensor([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 2.0]]).double()
    >>> plane = known @ torch.tensor([1.0, 4.0]).double()
    >>> interpolate(torch.tensor([[1.0, 0.5]]).double(), known, plane)
    (tensor([3.], dtype=torch.float64), tensor([1.1180], dtype=torch.float64))
    """
    near = min(_NEAR, len(known) - leave_out)
    found, reach = [], []
    for start in range(0, len(at), _BLOCK):
        points = at[start : start + _BLOCK]
        distance = torch.cdist(points, known)
        if leave_out:
            own = torch.arange(len(points))
            distance[own, start + own] = math.inf
        distance, index = _nearest(distance, near)
        found.append(_plates(points, known[index], values[index], distance[:, -1]))
        reach.append(distance[:, 0])
    return torch.cat(found), torch.cat(reach)


def _plates(points: Tensor, near: Tensor, values: Tensor, size: Tensor) -> Tensor:
    """The plates' values at points (Q, d), each from its own near ones (Q, k, d)."""
    many, k, d = near.shape
    x = (near - points[:, None]) / size[:, None, None]  # the point itself is the origin
    flat = torch.cat([torch.ones_like(x[..., :1]), x], dim=2)  # (Q, k, 1 + d)
    system = x.new_zeros(many, k + 1 + d, k + 1 + d)
    system[:, :k, :k] = _phi((x[:, :, None] - x[:, None]).square().sum(-1))
    system[:, :k, k:] = flat
    system[:, k:, :k] = flat.mT
    right = torch.cat([values, values.new_zeros(many, 1 + d)], dim=1)
    solved, _ = torch.linalg.solve_ex(system, right)
    plates = (solved[:, :k] * _phi(x.square().sum(-1))).sum(1) + solved[:, k]
    # points on a line leave the tilt across it open: then the nearest one's value
    good = torch.isfinite(plates) & ((plates - values[:, 0]).abs() <= 10 * _spread(values))
    return torch.where(good, plates, values[:, 0])


def _phi(square: Tensor) -> Tensor:
    return 0.5 * torch.xlogy(square, square)


def _spread(values: Tensor) -> Tensor:
    return values.amax(1) - values.amin(1)


def _nearest(distance: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest of each row in order; of equal ones those that come first."""
    order = distance.sort(dim=1, stable=True)
    return order.values[:, :k], order.indices[:, :k]


def _needed(places: Tensor) -> int:
    return places.shape[1] + 2


Evaluate = Callable[[list[int]], Tensor]


def refined(
    name: str,
    shape: tuple[int, ...],
    marks: Tensor,
    evaluate: Evaluate,
    *,
    tolerance: float,
) -> Tensor:
    """Evaluates points until the picture of `name` is right; which ones: (points,) bool.

    Args:
        evaluate: takes numbers of points, gives their values.
    """
    places = lattice(shape)
    known = torch.zeros(len(places), dtype=torch.bool)
    values = torch.full((len(places),), math.nan, dtype=torch.float64)
    points = coarse(shape, marks)
    while points:
        values[points] = evaluate(points)
        known[points] = True
        points = wanted(name, places, values, known, tolerance)
    return known
