"""A mode of a density and the curvature there, by Newton's method: where a fit begins."""

from __future__ import annotations

import torch
from torch import Tensor

from lowland.samplers.density import Density

_ITERATIONS = 30
_STEP = 1.0  # of differences of gradients, in standard deviations as known so far
_WIDER = 0.01  # least eigenvalue of a whitened precision: at most ten times as wide an iteration
_ENOUGH = 0.01  # nats that another step would gain
_LENGTHS = 0.5 ** torch.arange(16, dtype=torch.float64)


@torch.no_grad()
def find_mode(density: Density, z: Tensor, width: float) -> tuple[Tensor, Tensor]:
    r"""A mode near z (k,), and the Cholesky factor (k, k) of \((-\nabla^2 \log p)^{-1}\) there.

    Saddle-free Newton steps (Dauphin et al. 2014) in coordinates that are whitened by what is known
    so far, so that scales of 0.001 and 1 side by side do no harm. The Hessian is made of gradients
    a standard deviation from z, 2k + 1 points in one pass: kinks, and the rounding of a
    network in float32, are averaged over rather than magnified.

    >>> ridge = Density(
    ...     lambda z: -0.5 * ((z - 1) / torch.tensor([0.001, 1.0])).square().sum(1),
    ...     2,
    ...     prior_scale=None,
    ... )
    >>> mode, root = find_mode(ridge, torch.zeros(2).double(), 0.1)
    >>> mode, root.diagonal()
    (tensor([1., 1.], dtype=torch.float64), tensor([1.0000e-03, 1.0000e+00], dtype=torch.float64))
    """
    k = len(z)
    root = width * torch.eye(k, dtype=torch.float64)
    for _ in range(_ITERATIONS):
        sides = _STEP * torch.cat([root.T, -root.T])
        value, gradient = density.value_and_grad(torch.cat([z[None], z + sides]))
        gradient = gradient @ root  # in whitened coordinates
        finite = torch.isfinite(value)
        precision = _precision(gradient[0], gradient[1 : k + 1], gradient[k + 1 :], finite)
        # at a kink, such as the origin of a ReLU, the gradient of the point alone is 0
        here = gradient[finite].mean(0)
        eigenvalues, vectors = torch.linalg.eigh(precision)
        eigenvalues = eigenvalues.abs().clamp(min=_WIDER)
        move = vectors @ ((vectors.T @ here) / eigenvalues)
        gain = 0.5 * float(here @ move)
        wide = vectors * eigenvalues.rsqrt()
        step, root = root @ move, _lower(root @ wide)
        trial = z + _LENGTHS[:, None] * step
        values = density(trial)
        best = int(values.argmax())
        improved = bool(values[best] > value[0])
        if improved:
            z = trial[best]
        white = bool((eigenvalues.log().abs() < 0.5).all())
        if white and (gain < _ENOUGH or not improved):
            break
    return z, root


def _precision(here: Tensor, above: Tensor, below: Tensor, finite: Tensor) -> Tensor:
    """(k, k): the negative Hessian by differences, where the density is finite; else the identity,
    which leaves a direction as wide as it was."""
    k = len(here)
    up, down = finite[1 : k + 1, None], finite[k + 1 :, None]
    rows = (torch.where(down, below, here) - torch.where(up, above, here)) / _STEP
    rows = rows / (up.double() + down.double()).clamp(min=1)
    rows = torch.where(up | down, rows, torch.eye(k, dtype=rows.dtype))
    return 0.5 * (rows + rows.T)


def _lower(root: Tensor) -> Tensor:
    """The lower triangular factor with a positive diagonal of the same covariance; by QR, which
    does not square the condition number."""
    triangle: Tensor = torch.linalg.qr(root.T).R.T
    return triangle * triangle.diagonal().sign()
