"""Gaussian variational inference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from lowland import checks
from lowland.samplers.density import Density
from lowland.samplers.elbo import ElboFit, ElboKeywords, Family, start_point
from lowland.samplers.job import Job
from lowland.samplers.mode import find_mode
from lowland.samplers.variational_sampler import VariationalSampler

_FIRST = 0.1  # initial standard deviation of q, in units of the prior's


class Normal(Family):
    r"""\(z = m + A (\mu + L \epsilon)\): a Gaussian, learnt in coordinates that A whitens.

    L is lower triangular with a positive diagonal, whose logarithm is learnt, or diagonal. The
    gradient is that of Roeder et al. 2017: log q is differentiated through z alone, so that its
    noise is zero where q is p, and no other derivative than that of log p is needed.
    """

    def __init__(self, centre: Tensor, root: Tensor, *, full: bool) -> None:
        self.centre, self.root, self.full = centre, root, full
        self.k = len(centre)
        double = {"dtype": torch.float64, "requires_grad": True}
        self.mu = torch.zeros(self.k, **double)  # type: ignore[call-overload]
        self.log_sd = torch.zeros(self.k, **double)  # type: ignore[call-overload]
        self.parameters = [self.mu, self.log_sd]
        if full:
            self.below = torch.zeros(self.k, self.k, **double)  # type: ignore[call-overload]
            self.parameters.append(self.below)

    def constants(self) -> dict[str, Tensor]:
        return {"centre": self.centre, "root": self.root}

    @property
    def factor(self) -> Tensor:
        """L, (k, k)."""
        diagonal = torch.diag(self.log_sd.detach().exp())
        return diagonal + self.below.detach().tril(-1) if self.full else diagonal

    @property
    def mean(self) -> Tensor:
        """(k,)."""
        mean: Tensor = self.centre + self.root @ self.mu.detach()
        return mean

    @property
    def scale(self) -> Tensor:
        """(k, k), the Cholesky factor of the covariance."""
        return self.root @ self.factor

    @torch.no_grad()
    def draw(self, e: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.scale
        constant = scale.diagonal().log().sum() + 0.5 * self.k * math.log(2 * math.pi)
        return self.mean + e @ scale.T, -0.5 * e.square().sum(1) - constant

    @torch.no_grad()
    def backward(self, e: Tensor, evaluate: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        z, log_q = self.draw(e)
        log_p, gradient = evaluate(z)
        finite = torch.isfinite(log_p)
        # the gradient of log p - log q by u = mu + L e; that of log q is -L^{-T} e
        solved = torch.linalg.solve_triangular(self.factor.T, e.T, upper=True).T
        path = torch.where(finite[:, None], gradient @ self.root + solved, 0.0)
        n = int(finite.sum().clamp(min=1))
        outer = path.T @ e / n  # the gradient by L
        self.mu.grad = path.sum(0) / n
        self.log_sd.grad = outer.diagonal() * self.log_sd.exp()
        if self.full:
            self.below.grad = outer.tril(-1)
        return torch.where(finite, log_p - log_q, -math.inf)


class Variational(VariationalSampler):
    r"""The Gaussian q that maximises the ELBO, \(E_q[\log p(z) - \log q(z)]\), and draws of it.

    Adam on reparameterised draws (Kingma and Welling 2014), with the gradient of Roeder et al.
    2017, many draws a pass. It begins at a mode, in units of the curvature there (`whiten`), so
    that a learning rate means the same on a narrow ridge as on a wide plain. Izmailov et al. 2019
    take Adam at 0.01 for 30 epochs, a mean field and a prior of scale 1.

    The chain's `log_evidence_bound` is the ELBO. Its `about` has q's "mean" (k,) and "scale"
    (k, k), the Cholesky factor of its covariance; "elbo" (steps,), "steps", "converged"; and
    "khat": above 0.7 importance weights p / q cannot correct q's draws. Below it they can, though
    the draws may still be off, so that weighted moments are compared with plain ones. Where either
    shows a misfit of more than the tails there is a warning: compare with another sampler, or with
    "flow". Neither detects a part of p where q has no draws. Where the density is 0 or not a number
    q is truncated; "share" is the part of q that is left. The log density of every draw is
    evaluated on all data: draw no more than you need.

    Args:
        covariance: "full", or "mean-field": independent coordinates, too narrow where they depend
            on one another.
        draws: points at each step. steps: the most steps. lr: learning rate of Adam.
        decay_lr: lowers the learning rate each time the ELBO stalls, and ends at its floor; False:
            ends when the ELBO stalls first.
        tolerance: nats that 50 steps must gain.
        minibatch: each step reads a part of the data. whiten: finds a mode first, by Newton steps
            of 2k + 1 gradients on all data each; False, for very many coordinates: begins at the
            origin, or at the best of `start`, with a tenth of the prior's scale.
        evidence_draws: draws of the final estimate of the ELBO, on all data.

    Raises:
        ConfigError: no such covariance; a setting that is not positive; no minibatches.
        NonFiniteError: no finite log density where it starts.

    >>> from lowland.samplers import Density, Job
    >>> ridge = Density(lambda z: -(((z - 1) / 0.01) ** 2).sum(1) / 2, 1, prior_scale=None)
    >>> chain = Variational().run(ridge, Job(chains=2, samples=10))
    >>> chain.about["mean"], chain.about["scale"]
    (tensor([1.0000], dtype=torch.float64), tensor([[0.0100]], dtype=torch.float64))
    >>> round(chain.log_evidence_bound, 3), round(math.log(0.01 * math.sqrt(2 * math.pi)), 3)
    (-3.686, -3.686)
    """

    name: ClassVar[str] = "vi"

    def __init__(self, *, covariance: str = "full", **options: Unpack[ElboKeywords]) -> None:
        checks.choice("covariance", covariance, ("full", "mean-field"))
        super().__init__(**options)
        self.covariance = covariance

    def family(
        self, before: Sequence[Family], density: Density, job: Job, saved: dict[str, Any] | None
    ) -> Family | None:
        if before:
            return None
        full = self.covariance == "full"
        return initial_normal(density, job, saved, full=full, whiten=self.options.whiten)

    def about(self, fits: Sequence[tuple[Family, ElboFit]]) -> dict[str, Any]:
        return gaussian_moments(fits[0][0])


def initial_normal(
    density: Density, job: Job, saved: dict[str, Any] | None, *, full: bool, whiten: bool
) -> Normal:
    """The Gaussian that a fit begins with: at a mode with the curvature there, or the saved one."""
    if saved is not None:
        return Normal(saved["centre"], saved["root"], full=full)
    centre = start_point(density, job)
    width = _FIRST * (density.prior_scale or 1.0)
    root = width * torch.eye(density.k, dtype=torch.float64)
    if whiten:
        centre, root = find_mode(density, centre, width)
    if not full:  # the best independent coordinates have the precision's diagonal
        precision = torch.cholesky_inverse(root)
        root = torch.diag(precision.diagonal().rsqrt())
    return Normal(centre, root, full=full)


def gaussian_moments(family: Family) -> dict[str, Any]:
    """Mean (k,) and Cholesky factor of the covariance (k, k)."""
    assert isinstance(family, Normal)
    return {"mean": family.mean, "scale": family.scale}
