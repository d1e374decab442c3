"""SGD on a quadratic loss with known noise: covariances and expected losses in closed form.

L(w) = ½ wᵀHw, and a gradient is Hw + ξ with independent ξ ~ N(0, C). A step of SGD is
w ← (I - ηH) w - ηξ, so that iterates are Gaussian around 0, and a step's covariance follows from
that of the one before: Σ ← (I - ηH) Σ (I - ηH) + η² C. In the eigenvectors of H all products are
elementwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NoisyQuadratic:
    """The loss and its noise; covariances are (d, d), in float64."""

    hessian: Tensor  # (d, d)
    noise: Tensor  # C, (d, d)

    def step_from(self, covariance: Tensor, lrs: Sequence[float]) -> Tensor:
        """The covariance after steps at these learning rates."""
        for lr in lrs:
            shrink = torch.eye(len(self.hessian)).double() - lr * self.hessian
            covariance = shrink @ covariance @ shrink + lr**2 * self.noise
        return covariance

    def stationary(self, lrs: Sequence[float]) -> Tensor:
        """The covariance that steps at these learning rates leave as it is: of constant SGD for
        one learning rate, of the beginning of each cycle for those of a cycle."""
        vectors = torch.linalg.eigh(self.hessian).eigenvectors
        phi = self.shrinkage(lrs)
        added = vectors.T @ self.step_from(torch.zeros_like(self.noise), lrs) @ vectors
        return vectors @ (added / (1 - torch.outer(phi, phi))) @ vectors.T

    def shrinkage(self, lrs: Sequence[float]) -> Tensor:
        """(d,), what these steps leave of w along the eigenvectors of H."""
        values = torch.linalg.eigvalsh(self.hessian)
        return torch.stack([1 - lr * values for lr in lrs]).prod(0)

    def of_average(self, covariance: Tensor, lrs: Sequence[float], weights: Tensor) -> Tensor:
        """The covariance of the average, with these weights (n,), of iterates that have the same
        covariance each and lie the steps of `lrs` apart."""
        vectors = torch.linalg.eigh(self.hessian).eigenvectors
        phi = self.shrinkage(lrs)
        lag = torch.arange(len(weights))[:, None] - torch.arange(len(weights))
        powers = phi[:, None, None] ** lag.clamp_min(0)  # (d, n, n)
        factor = torch.einsum("s,t,ist,jts->ij", weights, weights, powers, powers)
        return vectors @ (factor * (vectors.T @ covariance @ vectors)) @ vectors.T

    def loss(self, covariance: Tensor) -> float:
        """The expected loss of weights with this covariance."""
        return float(torch.trace(self.hessian @ covariance)) / 2


def uniform(n: int) -> Tensor:
    """The weights of SWA."""
    return torch.full((n,), 1 / n, dtype=torch.float64)


def exponential(n: int, decay: float) -> Tensor:
    """The weights of an EMA that starts from the first iterate."""
    weights = (1 - decay) * decay ** torch.arange(n - 1, -1, -1, dtype=torch.float64)
    weights[0] = decay ** (n - 1)
    return weights
