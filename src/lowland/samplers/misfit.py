"""Whether a fitted density q is near the posterior p, by importance ratios p / q of its draws."""

from __future__ import annotations

import torch
from torch import Tensor

from lowland.warn import warn

KHAT = 0.7  # above it ratios are too heavy-tailed for weights to correct q (Vehtari et al. 2024)
_EFFECTIVE = 0.5  # effective share of the draws; it is larger where only tails are too light
_MEAN, _SQUARE = 0.2, 0.5  # shifts that it warns of, in standard deviations and variances of q
_ERRORS = 4.0  # standard errors by which the largest shift of k coordinates must exceed 0


@torch.no_grad()
def shifts(z: Tensor, log_ratios: Tensor) -> tuple[Tensor, Tensor]:  # (n, k), (n,) -> (2, k), both
    r"""The change by importance weights, \(E_p[x] - E_q[x]\) of each coordinate and of its square,
    in q's standard deviations from q's mean, and the standard errors of that.

    With \(w_i \propto p(z_i) / q(z_i)\) the difference is \(\sum_i (w_i - 1 / n)\, x_i\), whose
    error is that of a ratio, by the delta method.

    >>> z = torch.linspace(-3, 3, 601, dtype=torch.float64)[:, None]  # even, and p = q
    >>> shifts(z, torch.zeros(601))[0].abs().max() < 1e-12
    tensor(True)
    >>> float(shifts(z, 0.5 * z[:, 0])[0][0]) > 0.5  # p lies to the right of q
    True
    """
    n = len(z)
    x = (z - z.mean(0)) / z.std(0).clamp_min(1e-300)
    x = torch.stack([x, x.square()])  # (2, n, k)
    w = log_ratios.double().softmax(0)[:, None]
    plain, weighted = x.mean(1), (w * x).sum(1)
    influence = n * w * (x - weighted[:, None]) - (x - plain[:, None])
    return weighted - plain, influence.std(1) / n**0.5


def warn_if_far(z: Tensor, log_ratios: Tensor, khat: float | None, name: str) -> None:
    """Warns where Pareto's k or the weighted moments show that q is not near p.

    Neither detects a part of p where q has no draws, such as another mode.
    """
    reasons = []
    effective = float(1 / log_ratios.double().softmax(0).square().sum()) / len(z)
    if khat is not None and khat > KHAT and effective < _EFFECTIVE:
        reasons.append(
            f"Pareto's k is {khat:.2f}, above {KHAT}, and importance weights leave "
            f"{effective:.0%} of the draws effective"
        )
    change, error = shifts(z, log_ratios)
    significant = change.abs() > _ERRORS * error
    for moment, bound, shift, sure in zip(
        ("mean", "mean square"), (_MEAN, _SQUARE), change.abs(), significant, strict=True
    ):
        if (shift * sure).max() > bound:
            at = int((shift * sure).argmax())
            reasons.append(
                f"with importance weights the {moment} of coordinate {at} moves by {shift[at]:.2f} "
                f"{'standard deviations' if moment == 'mean' else 'variances'}"
            )
    if reasons:
        warn(
            f"{name}: the fitted density is not near the posterior ({'; '.join(reasons)}); compare "
            "with sampler='nuts', fit a 'flow' of more layers, or change the coordinates.",
        )
