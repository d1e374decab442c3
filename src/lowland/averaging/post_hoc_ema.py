r"""Averages of any width, reconstructed from stored ones (Karras et al. 2024, section 3).

The average of width \(\sigma\) at time t weighs the iterate of time \(\tau\) by the profile
\(p(\tau) = (\gamma + 1)\, \tau^\gamma / t^{\gamma + 1}\) on (0, t). A profile that was not kept is
approximated by a combination of those that were, by least squares over \(\tau\); the same
combination of the stored averages is the average.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lowland import checks
from lowland.averaging.weighted_mean import WeightedMean
from lowland.core import Point
from lowland.errors import LowlandError
from lowland.keywords import hinted
from lowland.trajectory import PostHocEMA
from lowland.trajectory.post_hoc_ema import power_exponent
from lowland.warn import warn

_CUTOFF = 1e-12  # of singular values: many snapshots have nearly dependent profiles
_POOR = 0.2  # relative error of a profile: above it, the average is another one


def profile_products(
    steps: Tensor,  # (n,)
    exponents: Tensor,  # (n,)
    other_steps: Tensor,  # (m,)
    other_exponents: Tensor,  # (m,)
) -> Tensor:  # (n, m) float64
    r"""Inner products of profiles,
    \(\int p_i p_j = \frac{(\gamma_i + 1)(\gamma_j + 1)}{\gamma_i + \gamma_j + 1}\,
    \frac{\min(t_i, t_j)^{\gamma_i + \gamma_j + 1}}{t_i^{\gamma_i + 1} t_j^{\gamma_j + 1}}\).

    >>> one, zero = torch.ones(1), torch.zeros(1)
    >>> profile_products(2 * one, zero, 4 * one, zero)  # 1/2 on (0, 2), 1/4 on (0, 4)
    tensor([[0.2500]], dtype=torch.float64)
    """
    t, s = steps.double()[:, None].log(), other_steps.double()[None].log()
    a, b = exponents.double()[:, None] + 1, other_exponents.double()[None] + 1
    power = a + b - 1
    return a * b / power * (power * torch.minimum(t, s) - a * t - b * s).exp()


def profile_weights(
    steps: Tensor, exponents: Tensor, step: float, exponent: float
) -> tuple[Tensor, float]:
    """The combination (n,) of stored profiles that is next to another one, and the norm of the
    difference as a share of that profile's. The weights sum to 1."""
    one = torch.ones(1, dtype=torch.float64)
    products = profile_products(steps, exponents, steps, exponents)
    target = profile_products(steps, exponents, step * one, exponent * one)[:, 0]
    square = float(profile_products(step * one, exponent * one, step * one, exponent * one))
    norms = products.diagonal().sqrt()
    # a Lagrange multiplier keeps the sum: the average of a constant is the constant
    n = len(steps)
    system = torch.zeros(n + 1, n + 1, dtype=torch.float64)
    system[:n, :n] = products / norms / norms[:, None]
    system[n, :n] = system[:n, n] = 1 / norms
    right = torch.cat([target / norms, one])
    solution = torch.linalg.lstsq(system, right[:, None], rcond=_CUTOFF, driver="gelsd").solution
    weights = solution[:n, 0] / norms
    weights = weights / weights.sum()
    error = float(weights @ products @ weights - 2 * weights @ target) + square
    return weights, (max(error, 0.0) / square) ** 0.5


@hinted
def post_hoc_ema(ema: PostHocEMA, *, width: float, step: int | None = None) -> Point:
    r"""The average of another width than those that were kept in training.

    Least squares over the profiles of all snapshots up to `step`. Widths between the kept ones are
    those that training would have kept: on a random walk of 2,000 steps with 20 snapshots at 0.05
    and 0.10 the error at 0.07 and 0.15 is below 0.1% of the distance between the kept averages, and
    at 0.2 below 1%. Much narrower widths than the narrowest kept cannot be had: a warning gives the
    error of the profile.

    Args:
        ema: the averages and snapshots of a run. width: of the average, as a share of training.
        step: the time of the average; None: the last.

    Raises:
        ConfigError: a width outside (0, 0.288]. LowlandError: no snapshot up to `step`.

    >>> import tempfile
    >>> from lowland.core import ParamLayout
    >>> layout = ParamLayout(torch.nn.Linear(1, 1, bias=False))
    >>> ema = PostHocEMA(tempfile.mkdtemp(), layout, interval=10)
    >>> for value in range(100):
    ...     ema.update(torch.tensor([float(value)]))
    >>> for width in (0.05, 0.08, 0.1):
    ...     print(width, round(float(post_hoc_ema(ema, width=width).weights), 1))
    0.05 94.2
    0.08 ...
    0.1 ...
    """
    exponent = power_exponent(width)
    at = ema.count if step is None else checks.whole("step", step, least=1, most=ema.count)
    keys = [(w, t) for w, t, _ in ema.snapshots() if t <= at]
    if not keys:
        raise LowlandError(
            f"there is no snapshot up to step {at}; update the PostHocEMA in training, or take a "
            "shorter interval."
        )
    steps = torch.tensor([t for _, t in keys])
    exponents = torch.tensor([power_exponent(w) for w, _ in keys], dtype=torch.float64)
    weights, error = profile_weights(steps, exponents, at, exponent)
    if error > _POOR:
        warn(
            f"width {width:g}: its profile differs from the nearest combination of snapshots by "
            f"{error:.0%}; take a width from {ema.widths[0]:g} on, or snapshots at closer steps.",
        )
    mean, buffers, latest = WeightedMean(), None, 0
    points = (item for item in ema.snapshots() if item[1] <= at)
    for (_, t, point), weight in zip(points, weights.tolist(), strict=True):
        mean.add(Point(point.weights), weight)
        if t > latest:
            buffers, latest = point.buffers, t
    return Point(mean.point.weights, buffers)
