r"""Projected ascent: the largest loss in a ball or box around w.

The ball is \(\{T u : |u|_p \le \rho\}\) with a scale T for each weight and p = 2 or infinity. A
step goes along the steepest ascent of its norm, \(T g / |T g|\) or its sign, and is projected. The
first step is long enough to reach the border. On a convex function it is then a step of the power
method, which never descends; elsewhere a step that does not ascend is halved.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowland.core.inner import inner
from lowland.core.seeds import stream
from lowland.curvature.objective import Objective

FIRST_STEP = 8.0  # radii; the projection of u + 8 rho g is nearly that of g alone


def ascend(
    objective: Objective,
    radius: float,
    *,
    scale: Tensor | float,
    norm: float,
    steps: int,
    start: Tensor | None = None,
) -> float:
    """The largest loss that `steps` steps reach, at least that at the start and at w.

    One step from w is the linearised maximum of Foret et al. 2021.

    Args:
        scale: T, (P,) or a number. norm: p. start: u, (P,) in the ball; None: w itself.
    """
    if start is None:
        u = torch.zeros_like(objective.weights)
        best, gradient = objective.loss, objective.gradient
    else:
        u = start
        best, gradient = objective.value_and_grad(scale * u)
    step = FIRST_STEP * radius
    for i in range(steps):
        slope = scale * gradient
        size = float(inner(slope, slope).sqrt())
        if not math.isfinite(best) or not math.isfinite(size) or size == 0:
            break
        direction = slope.sign() if norm == math.inf else slope / size
        candidate = project(u + step * direction, radius, norm)
        if i == steps - 1:
            return max(best, objective.value(scale * candidate), objective.loss)
        value, new_gradient = objective.value_and_grad(scale * candidate)
        if value > best:
            u, best, gradient = candidate, value, new_gradient
        else:
            step /= 2
    return max(best, objective.loss)


def project(u: Tensor, radius: float, norm: float) -> Tensor:
    """The nearest point of the ball, (P,).

    >>> project(torch.tensor([3.0, 4.0]), 1.0, norm=2)
    tensor([0.6000, 0.8000])
    >>> project(torch.tensor([3.0, -0.5]), 1.0, norm=math.inf)
    tensor([ 1.0000, -0.5000])
    """
    if norm == math.inf:
        return u.clamp(-radius, radius)
    return u * min(1.0, radius / max(float(inner(u, u).sqrt()), torch.finfo(u.dtype).tiny))


def random_start(like: Tensor, radius: float, norm: float, *, seed: int, number: int) -> Tensor:
    """A random u, as `like`: uniform in the box, or on the sphere.

    >>> u = random_start(torch.zeros(3), 2.0, 2, seed=0, number=1)
    >>> float(u.norm())
    2.0000...
    """
    noise = torch.randn(len(like), generator=stream("sharpness start", seed, number)).to(like)
    if norm == math.inf:
        return radius * torch.erf(noise / math.sqrt(2))
    return noise * (radius / float(inner(noise, noise).sqrt()))
