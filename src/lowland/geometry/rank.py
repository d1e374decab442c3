"""How many principal components: a number, a share of the variance, or the most evident rank."""

from __future__ import annotations

import math
import operator
from typing import SupportsIndex

import torch
from torch import Tensor

from lowland.errors import ConfigError

Rank = SupportsIndex | float | str

ROUNDING = 1e-10  # of the largest eigenvalue: below it there is only rounding


def resolve_rank(
    rank: Rank,
    spectrum: Tensor,  # (d,) float64, descending: all eigenvalues that are not zero
    *,
    total: float,
    samples: int,
    whole: bool = True,
    deviations: bool = False,
) -> int:
    """The rank as a number of directions, checked.

    Args:
        rank: see `Subspace.pca`. total: the total variance, at least the spectrum's sum.
        samples: number of iterates or deviations. whole: whether the spectrum has all eigenvalues.
        deviations: whether samples are SWAG's deviations, n of which span up to n dimensions, and
            not iterates, which span n - 1 about their mean.

    >>> spectrum = torch.tensor([6.0, 3.0, 1.0], dtype=torch.float64)
    >>> [resolve_rank(rank, spectrum, total=10, samples=4) for rank in (2, 0.95)]
    [2, 3]
    """
    span = len(spectrum)
    if isinstance(rank, str):
        if rank != "evidence":
            raise ConfigError(f"rank: expected a number or 'evidence', got {rank!r}.")
        if not whole:
            raise ConfigError(
                "rank='evidence' needs every eigenvalue, and this sketch has dropped some; give a "
                "number, a share of the variance, or a sketch of more rows."
            )
        _require(1, span, samples, deviations)
        values = evidence(spectrum, samples)
        return int(values.argmax()) + 1 if len(values) else 1
    if isinstance(rank, float):
        if not 0 < rank < 1:
            raise ConfigError(
                f"rank: expected an integer, or a share of the variance between 0 and 1, got {rank}"
            )
        _require(1, span, samples, deviations)
        shares = spectrum.cumsum(0) / total
        enough = int((shares < rank * (1 - 1e-12)).sum()) + 1
        if enough > span:
            raise ConfigError(
                f"rank: expected a share of at most {float(shares[-1]):.4f}, which is what the "
                f"sketch still has of the variance, got {rank}; give it more rows."
            )
        return enough
    rank = operator.index(rank)
    _require(rank, span, samples, deviations)
    return rank


def _require(rank: int, span: int, samples: int, deviations: bool) -> None:
    if deviations and not 1 <= rank <= samples:
        raise ConfigError(
            f"rank: expected 1 to {samples}, which {samples} deviations can span, got {rank}; keep "
            "more of them (rank= of SWAG), or ask for fewer directions."
        )
    if not deviations and not 1 <= rank < samples:
        raise ConfigError(
            f"rank: expected 1 to {samples - 1}, which {samples} iterates can span, got {rank}; "
            "collect more iterates, or ask for fewer directions."
        )
    if rank > span:
        raise ConfigError(
            f"rank: expected at most {span}, which is what the {samples} iterates span, got {rank};"
            " collect iterates that differ more, or ask for fewer directions."
        )


def evidence(spectrum: Tensor, samples: int) -> Tensor:  # (d,) -> (d - 1,)
    r"""Laplace's approximation to \(\log p(X | k)\) of probabilistic PCA, for k = 1 ... d - 1.

    Minka 2000, *Automatic choice of dimensionality for PCA*, as scikit-learn computes it: with N
    samples in d dimensions, eigenvalues \(\lambda_1 > \dots > \lambda_d\) of their covariance,
    \(v = \frac{1}{d - k} \sum_{j > k} \lambda_j\) and \(m = dk - k(k + 1)/2\),

    \[\log p(U) - \tfrac N2 \sum_{i \le k} \log\lambda_i - \tfrac{N (d - k)}{2} \log v
      + \tfrac{m + k}{2} \log 2\pi - \tfrac12 \log|A_Z| - \tfrac k2 \log N,\]
    \[\log p(U) = -k \log 2 + \sum_{i \le k} \log\Gamma(\tfrac{d - i + 1}{2})
      - \tfrac{d - i + 1}{2} \log\pi, \qquad
    |A_Z| = \prod_{i \le k} \prod_{j > i} N (\lambda_i - \lambda_j)
      (\hat\lambda_j^{-1} - \hat\lambda_i^{-1}),\]

    \(\hat\lambda\) being \(\lambda\) up to k and v after it. Weights have more dimensions than
    there are iterates: d is then the number of eigenvalues that are not zero, so that what is
    maximised is the evidence of the iterates *within the dimensions that they span*. It tells
    directions from noise where the iterates move in few dimensions; noise that fills more of them
    than there are iterates has a spectrum which falls all the way, and counts as directions.

    >>> spectrum = torch.tensor([9.0, 8.0, 0.11, 0.1, 0.09], dtype=torch.float64)
    >>> int(evidence(spectrum, 100).argmax()) + 1
    2
    """
    d, n = len(spectrum), samples
    places = (d - torch.arange(d, dtype=torch.float64, device=spectrum.device)) / 2
    of_frames = (torch.lgamma(places) - places * math.log(math.pi) - math.log(2)).cumsum(0)
    logs = spectrum.log().cumsum(0)
    after = spectrum.sum() - spectrum.cumsum(0)
    gaps = spectrum[:, None] - spectrum  # (d, d)
    upper = torch.ones_like(gaps).triu(1).bool()
    values = []
    for k in range(1, d):
        v = after[k - 1] / (d - k)
        inverse = torch.cat([spectrum[:k], v.expand(d - k)]).reciprocal()
        product = gaps[:k] * (inverse - inverse[:k, None])
        pairs = upper[:k]
        log_a = product[pairs].log().sum() + math.log(n) * pairs.sum()
        m = d * k - k * (k + 1) / 2
        values.append(
            of_frames[k - 1]
            - n / 2 * logs[k - 1]
            - n * (d - k) / 2 * v.log()
            + (m + k) / 2 * math.log(2 * math.pi)
            - log_a / 2
            - k / 2 * math.log(n)
        )
    out = torch.stack(values) if values else spectrum.new_empty(0)
    # of equal eigenvalues the first cannot be told from the second, and Laplace's integral diverges
    return torch.where(out.isfinite(), out, -torch.inf)


def span_of(values: Tensor) -> int:
    """How many eigenvalues, in descending order, are more than rounding."""
    return int((values > ROUNDING * values[0]).sum()) if values[0] > 0 else 0
