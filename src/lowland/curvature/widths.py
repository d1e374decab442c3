"""How far from a minimum the loss rises: along rays, and the distance of a given rise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Unpack

import torch
from torch import Tensor

from lowland import checks
from lowland.core import LossSurface, Point
from lowland.core.inner import inner
from lowland.core.options import EvalKeywords
from lowland.curvature.objective import Objective
from lowland.curvature.rays import RandomRays, Rays, rays_of
from lowland.landscape.directions import NORMALISE
from lowland.progress import Progress, reporting
from lowland.records import WidthsResult

_TOLERANCE = 1e-3  # relative, of the losses of rescaled networks
_DOUBLINGS = 10  # of the default radius, for directions in which the loss hardly changes


def widths(
    surface: LossSurface,
    w: Tensor | Point,
    *,
    directions: Any = 10,
    normalise: str | None = "filter",
    radius: float | None = None,
    points: int = 21,
    rise: float = 0.1,
    tolerance: float = 1e-3,
    loader: Iterable[Any] | None = None,
    test_count: int | None = None,
    seed: int = 0,
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> WidthsResult:
    r"""\(L(w + t d_i)\) along rays, and the least t with \(L(w + t d_i) \ge L(w) + \delta\).

    The rays of Izmailov et al. 2018, section 4.1. Points on each ray bracket the t of the rise, and
    bisection finds it. A wider minimum has larger widths; filter-normalised ones do not change
    where one layer is multiplied by a number and the next divided by it, plain ones do.

    Args:
        w: a minimum, (P,), a `Point`, a model, or an average such as `SWA`.
        directions: a number of random ones; or a tensor (n, P); or a `Subspace`; or
            `ll.spectrum(surface, w, eigenvectors=True)` for eigenvectors; or `SWAG`, for its five
            principal components, which have the lengths of standard deviations.
        normalise: of random directions: "filter" or "layer", see `ll.directions`; None: plain, of
            length 1.
        radius: the last t; None: 1, and |w| for plain directions, doubled until the loss has risen
            on half of the rays.
        points: on each ray, w included. rise: \(\delta\), in nats.
        tolerance: of the widths, as a share of the radius.
        loader: further examples, such as the test set. test_count: how many of them; None: all.
        seed: direction i is a function of (seed, i).
        progress, options: as for `ll.sharpness`.

    Raises:
        ConfigError: a radius, rise or tolerance of 0 or less, fewer than two points, directions of
            another kind. LayoutError: weights or directions of another model. NonFiniteError: no
            finite loss at w.

    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])  # L = w1² + w2² / 4 + a constant
    >>> net = nn.Linear(2, 1, bias=False)
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), [(x, torch.zeros(2, 1))])
    >>> result = widths(surface, torch.zeros(2), directions=torch.eye(2), rise=0.25, tolerance=1e-6)
    >>> result.width
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    checks.choice("normalise", normalise, NORMALISE)
    points = checks.whole("points", points, least=2)
    rise = checks.number("rise", rise, above=0)
    radius = None if radius is None else checks.number("radius", radius, above=0)
    tolerance = checks.number("tolerance", tolerance, above=0)
    if test_count is not None:
        test_count = checks.whole("test_count", test_count, least=1)
    seed = checks.seed(seed)
    rays = rays_of(directions, surface, normalise=normalise, seed=seed)
    eval_options = surface.options.override(**options)
    with reporting(progress, "widths") as report:
        objective = Objective(surface, w, options=eval_options, report=report)
        target = objective.loss + rise
        if radius is None:
            radius = _default_radius(objective, rays, target)
        t = torch.linspace(0, radius, points, dtype=torch.float64)
        metrics = _metrics(objective, rays, t, loader, test_count)
        width = _bisect(objective, rays, t, metrics["loss"], target, tolerance * radius)
        invariant = _invariant(objective, rays, t, metrics["loss"])
    vectors = (rays.direction(i, objective.weights) for i in range(len(rays)))
    return WidthsResult(
        rays.name,
        t,
        metrics,
        width,
        tolerance * radius,
        rise,
        torch.stack([inner(d, d).sqrt() for d in vectors]).cpu(),
        loss=objective.loss,
        gradient_norm=objective.gradient_norm,
        invariant=invariant,
        batchnorm=objective.batchnorm,
        examples=objective.examples,
    )


def _default_radius(objective: Objective, rays: Rays, target: float) -> float:
    """A t at which half of the losses are not below the target, or 1,000 times the first one."""
    radius = 1.0
    if rays.name == "plain":
        radius = float(inner(objective.weights, objective.weights).sqrt()) or 1.0
    for _ in range(_DOUBLINGS):
        ends = (radius * rays.direction(i, objective.weights) for i in range(len(rays)))
        rows = objective.rows(ends, len(rays))
        if 2 * sum(not row["loss"] < target for row in rows) >= len(rays):
            break
        radius *= 2
    return radius


def _metrics(
    objective: Objective,
    rays: Rays,
    t: Tensor,
    loader: Iterable[Any] | None = None,
    test_count: int | None = None,
) -> dict[str, Tensor]:  # {name: (n, m)}
    """The metrics of all points; w, which the rays share, is evaluated once."""

    def displacements() -> Iterator[Tensor]:
        yield torch.zeros_like(objective.weights)
        for i in range(len(rays)):
            direction = rays.direction(i, objective.weights)
            yield from (float(number) * direction for number in t[1:])

    test_data = None if loader is None else objective.surface.replayable(loader, count=test_count)
    total = 1 + len(rays) * (len(t) - 1)
    first, *others = objective.rows(displacements(), total, test_data=test_data)
    out = {}
    for name in first:
        if name in ("nll", "test_nll"):
            continue
        column = torch.tensor([row[name] for row in others], dtype=torch.float64)
        start = torch.full((len(rays), 1), first[name], dtype=torch.float64)
        out[name] = torch.cat([start, column.reshape(len(rays), -1)], 1)
    return out


def _bisect(
    objective: Objective, rays: Rays, t: Tensor, loss: Tensor, target: float, tolerance: float
) -> Tensor:  # (n,)
    """The least t at which the loss is not below the target, to the tolerance; bisection between
    the last point below it and the next, of all rays at once."""
    above = ~(loss < target)  # infinite ones are, too
    risen = above.any(1)
    index = above.long().argmax(1).clamp_min(1)
    low, high = t[index - 1].clone(), t[index].clone()
    active = risen.nonzero()[:, 0].tolist()
    while active and float((high - low)[active].max()) > tolerance:
        middle = (low + high) / 2
        points = (float(middle[i]) * rays.direction(i, objective.weights) for i in active)
        for i, row in zip(active, objective.rows(points, len(active)), strict=True):
            (low if row["loss"] < target else high)[i] = middle[i]
    return torch.where(risen, high, math.inf)


def _invariant(objective: Objective, rays: Rays, t: Tensor, loss: Tensor) -> bool | None:
    """Whether the losses along the first ray remain for rescaled networks."""
    if not isinstance(rays, RandomRays):
        return None
    first = rays.first()
    losses = [_metrics(near, first, t)["loss"][0] for near in objective.rescaled()]
    if not losses:
        return None
    rescaled = torch.stack(losses)
    return torch.allclose(
        rescaled, loss[:1].expand_as(rescaled), rtol=_TOLERANCE, atol=1e-9, equal_nan=True
    )
