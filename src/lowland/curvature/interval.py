"""The mean of independent draws, with its interval."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from lowland import checks

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """An estimate, and the ends of its interval at 95%."""

    mean: float
    low: float
    high: float


def mean_interval(draws: Tensor) -> Interval:  # (n,)
    r"""\(\bar x \pm t_{n-1} s / \sqrt n\), Student's interval at 95%; infinite for one draw.

    >>> import torch
    >>> mean_interval(torch.tensor([1.0, 2.0, 3.0]))
    Interval(mean=2.0, low=-0.4841..., high=4.4841...)
    """
    values = draws.double()
    mean, n = float(values.mean()), len(values)
    half = t_quantile(n) * float(values.std()) / math.sqrt(n) if n > 1 else math.inf
    return Interval(mean, mean - half, mean + half)


def t_quantile(n: int) -> float:
    """The factor of the standard error of n draws' mean in an interval at 95%; infinite for one.

    >>> round(t_quantile(10), 3)
    2.262
    """
    if n < 2:
        return math.inf
    special = checks.package("scipy.special", extra="curvature", purpose="an interval")
    return float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2))
