"""Scores of Gaussian and mixture predictions of real-valued targets: CRPS, coverage, sharpness."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowland.errors import DataError
from lowland.records import Predictive

LEVELS = (0.5, 0.9, 0.95)


def scores(pred: Predictive) -> dict[str, float]:
    r"""CRPS, coverage and sharpness of a regression, in the target's own units.

    All are those of the Gaussian with the predictive mean and total variance, averaged over
    examples and target dimensions:

    - `crps`, see `lowland.crps`;
    - `coverage_50`, `coverage_90`, `coverage_95`, the share of targets inside the central interval
      of that probability: .50, .90, .95 for a calibrated forecast;
    - `width_90`, the mean width of the 90% interval, and `sd`, the mean standard deviation. Among
      calibrated forecasts, the sharper one is the better (Gneiting et al. 2007).

    Raises:
        DataError: a prediction without mean, variance or targets.

    >>> y = torch.tensor([[0.5], [3.0]])
    >>> pred = Predictive(
    ...     "regression", 1, mean=torch.zeros(2, 1), variance=torch.ones(2, 1), targets=y
    ... )
    >>> {name: round(value, 2) for name, value in scores(pred).items()}
    {'crps': 1.38, 'coverage_50': 0.5, 'coverage_90': 0.5, 'coverage_95': 0.5, 'width_90': 3.29,
     'sd': 1.0}
    """
    if pred.mean is None or pred.variance is None or pred.targets is None:
        raise DataError(
            "these scores need mean, variance and targets: predict a regression on labelled "
            "examples with keep='probs'."
        )
    mean, sd, target = pred.mean.double(), pred.variance.double().sqrt(), pred.targets.double()
    values = {"crps": float(crps(target, mean, sd**2).mean())}
    for level in LEVELS:
        inside = (target - mean).abs() <= _half_width(level) * sd
        values[f"coverage_{100 * level:.0f}"] = float(inside.double().mean())
    return values | {"width_90": float(2 * _half_width(0.9) * sd.mean()), "sd": float(sd.mean())}


def crps(target: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    r"""\(\int (F(x) - 1[y \le x])^2 dx\), the continuous ranked probability score; lower is better.

    It is in the target's units, and the absolute error for a point forecast. For a Gaussian it is
    \(\sigma [z (2 \Phi(z) - 1) + 2 \varphi(z) - 1 / \sqrt\pi]\), \(z = (y - \mu) / \sigma\)
    (Gneiting & Raftery 2007); for a mixture of S Gaussians with equal weights
    \(\frac1S \sum_i A(y - \mu_i, \sigma_i^2) - \frac1{2 S^2} \sum_{ij} A(\mu_i - \mu_j,
    \sigma_i^2 + \sigma_j^2)\), \(A(m, s^2) = 2 s \varphi(m / s) + m (2 \Phi(m / s) - 1)\) (Grimit
    et al. 2006).

    Args:
        target: (N, D), or (N, ...) for sequences and images.
        mean, variance: (N, D), of Gaussians; or (S, N, D), of the components of mixtures, in
            O(S²ND) time and O(SND) memory.

    Raises:
        DataError: shapes that do not match; nothing is broadcast.

    >>> crps(torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1))  # (√2 - 1) / √π
    tensor([[0.2337]], dtype=torch.float64)
    """
    target, mean, variance = target.double(), mean.double(), variance.double()
    is_gaussian = mean.ndim == target.ndim
    expected = mean.shape if is_gaussian else mean.shape[1:]
    if mean.shape != variance.shape or target.shape != expected:
        raise DataError(
            f"crps: for targets {tuple(target.shape)} expected means and variances (N, D) or (S, "
            f"N, D), got {tuple(mean.shape)} and {tuple(variance.shape)}."
        )
    if is_gaussian:
        mean, variance = mean.unsqueeze(0), variance.unsqueeze(0)
    spread = torch.zeros_like(target)
    for m, v in zip(mean, variance, strict=True):  # one component against all at a time
        spread += _expected_distance(mean - m, variance + v).mean(0)
    return _expected_distance(target - mean, variance).mean(0) - spread / (2 * len(mean))


def _expected_distance(mean: Tensor, variance: Tensor) -> Tensor:
    """E|X| of Gaussian X."""
    sd = variance.sqrt()
    z = mean / sd.clamp_min(torch.finfo(sd.dtype).tiny)  # where sd is 0, infinite or 0
    density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return 2 * sd * density + mean * torch.erf(z / math.sqrt(2))


def _half_width(level: float) -> float:
    """Half the central interval of a standard normal."""
    return math.sqrt(2) * float(torch.erfinv(torch.tensor(level, dtype=torch.float64)))
