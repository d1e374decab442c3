"""Gaussians with a diagonal plus low-rank covariance: the SWAG posterior."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowland import checks
from lowland.core.point import Point, as_point
from lowland.core.spread import relative_spread
from lowland.errors import ConfigError, LayoutError, LowlandError
from lowland.posteriors.base import Posterior
from lowland.posteriors.noise import normal, small_normal

# values worked on at a time: few enough to stay in cache between operations, and enough that two
# threads seldom wait for one another
_PART = 1 << 19


class Gaussian(Posterior):
    r"""The SWAG posterior of Maddox et al. 2019.

    \(w = \bar w + \sqrt{s}\,(\sigma \odot z_1 / \sqrt 2 + D^\top z_2 / \sqrt{2 (K - 1)})\), with
    one \(z_2 \in R^K\) for all parameters; without deviations
    \(w = \bar w + \sqrt{s}\,\sigma \odot z_1\). s = 1 is the paper's covariance in both cases.

    Args:
        mean, variance: (P,), \(\sigma^2\) the variance of the iterates; the mean may be a `Point`.
        deviations: (K, P), the rows of D, or None.
        scale: s, multiplies the covariance; 0 draws the mean.
        buffers: of the mean, by name, which every draw has too; None: those of the point.

    Raises:
        LayoutError: shapes that do not fit together. ConfigError: a negative scale, K = 1.

    >>> post = Gaussian(torch.zeros(2), torch.ones(2))
    >>> post.log_prob(torch.zeros(2))  # -log 2 pi
    tensor(-1.8379, dtype=torch.float64)
    """

    def __init__(
        self,
        mean: Tensor | Point,
        variance: Tensor,
        deviations: Tensor | None = None,
        *,
        scale: float = 1.0,
        buffers: dict[str, Tensor] | None = None,
    ) -> None:
        center = as_point(mean, what="Gaussian: the mean")
        mean, variance = center.weights, as_point(variance, what="Gaussian: the variance").weights
        if variance.shape != mean.shape:
            raise LayoutError(
                f"Gaussian: expected mean and variance (P,), got {tuple(mean.shape)} and "
                f"{tuple(variance.shape)}."
            )
        if deviations is not None and deviations.shape[1:] != mean.shape:
            raise LayoutError(
                f"deviations: expected (K, {len(mean)}), got {tuple(deviations.shape)}."
            )
        if deviations is not None and len(deviations) < 2:
            raise ConfigError(
                "deviations: expected at least 2 rows; leave them out for a diagonal."
            )
        self.mean = mean
        self.variance = variance
        self.deviations = deviations
        self.scale = checks.number("scale", scale, least=0)
        self.buffers = center.buffers if buffers is None else buffers
        self.size = len(mean)

    @property
    def has_scale(self) -> bool:
        return True

    def with_scale(self, scale: float) -> Gaussian:
        """The same moments under another scale; nothing is copied."""
        scaled = Gaussian(
            self.mean, self.variance, self.deviations, scale=scale, buffers=self.buffers
        )
        return scaled.remember(self.frozen)

    @property
    def relative_spread(self) -> float:
        r"""\(\sqrt{\operatorname{tr} \Sigma} / |\bar w|\): how far draws lie from the mean.

        >>> Gaussian(torch.tensor([3.0, 4.0]), torch.ones(2), scale=2.0).relative_spread
        0.4
        """
        diagonal, low_rank = self._shares
        trace = diagonal * float(self.variance.sum())
        if self.deviations is not None:
            trace += low_rank * sum(float(row.norm()) ** 2 for row in self.deviations)
        return relative_spread(math.sqrt(trace), float(self.mean.norm()))

    @property
    def _shares(self) -> tuple[float, float]:
        """What the variance and the squared deviations are multiplied with in the covariance."""
        if self.deviations is None:
            return self.scale, 0.0
        return self.scale / 2, self.scale / (2 * (len(self.deviations) - 1))

    @torch.no_grad()
    def point(self, i: int, *, seed: int = 0) -> Point:
        dtype, device = self.mean.dtype, self.mean.device
        # on the CPU whatever the device, so that a draw is the same everywhere
        out = normal(self.size, seed=seed, draw=i, dtype=dtype).to(device)
        diagonal, low_rank = (math.sqrt(share) for share in self._shares)
        z2 = None
        if self.deviations is not None:
            z2 = small_normal(len(self.deviations), seed=seed, draw=i, dtype=dtype)
            z2 = (z2 * low_rank).to(device)
        part = _PART if device.type == "cpu" else self.size
        if self.deviations is not None and self.deviations.dtype != dtype:
            part = max(part // len(self.deviations), 1)  # K columns of it are widened
        for start in range(0, self.size, part):
            piece = slice(start, start + part)
            values, spread = out[piece], self.variance[piece].sqrt()
            torch.addcmul(self.mean[piece], values, spread, value=diagonal, out=values)
            if z2 is not None and self.deviations is not None:
                columns = self.deviations[:, piece]  # (K, part)
                values.addmv_(columns.to(device, dtype).T, z2)
        return Point(out, self.buffers)

    @torch.no_grad()
    def log_prob(self, w: Tensor) -> Tensor:  # w: (..., P) -> (...)
        """The density that draws come from, by the Woodbury identity, in float64.

        Raises:
            LowlandError: where a variance is 0 there is no density (dead units have such weights).
        """
        if w.shape[-1] != self.size:
            raise LayoutError(f"weights: expected (..., {self.size}), got {tuple(w.shape)}.")
        if self.scale == 0:
            raise LowlandError("no density: scale is 0, all mass is on the mean; use with_scale.")
        diagonal, low_rank = self._shares
        zeros = int((self.variance <= 0).sum())
        if zeros:
            raise LowlandError(
                f"no density: {zeros} of {self.size} weights have variance 0; leave them out with "
                "where=, or collect iterates in which they move."
            )
        rows = w.reshape(-1, self.size)
        k = 0 if self.deviations is None else len(self.deviations)
        gram = torch.eye(k, dtype=torch.float64, device=w.device)
        cross = torch.zeros(len(rows), k, dtype=torch.float64, device=w.device)
        square = torch.zeros(len(rows), dtype=torch.float64, device=w.device)
        log_det = torch.zeros((), dtype=torch.float64, device=w.device)
        part = max(_PART // 8, 1)  # K columns of it are widened to float64
        for start in range(0, self.size, part):
            piece = slice(start, start + part)
            variance = self.variance[piece].double() * diagonal
            error = rows[:, piece].double() - self.mean[piece].double()
            log_det += variance.log().sum()
            square += (error**2 / variance).sum(1)
            if self.deviations is not None:
                factor = self.deviations[:, piece].double() * math.sqrt(low_rank)
                gram += factor / variance @ factor.T
                cross += error / variance @ factor.T
        if k:
            root = torch.linalg.cholesky(gram)
            solved = torch.linalg.solve_triangular(root, cross.T, upper=False)
            square -= (solved**2).sum(0)
            log_det += 2 * root.diagonal().log().sum()
        total = -0.5 * (square + log_det + self.size * math.log(2 * math.pi))
        return total.reshape(w.shape[:-1])
