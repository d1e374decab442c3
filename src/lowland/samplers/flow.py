"""Variational inference with a normalizing flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from lowland import checks
from lowland.core.seeds import fork_torch_rng, seed_for
from lowland.samplers.density import Density
from lowland.samplers.elbo import ElboFit, ElboKeywords, Family
from lowland.samplers.job import Job
from lowland.samplers.variational import gaussian_moments, initial_normal
from lowland.samplers.variational_sampler import VariationalSampler

_FEW = 8  # coordinates up to which going back through the layers costs little

WithGradient = Callable[[Tensor], tuple[Tensor, Tensor]]


class WithGivenGradient(torch.autograd.Function):
    """A function that computes its own gradient, as a step of autograd's chain."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, evaluate: WithGradient) -> Tensor:
        """(n, k) -> (n,)."""
        value, gradient = evaluate(z)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        """The gradient of each point, times what comes from above."""
        (gradient,) = ctx.saved_tensors
        return upstream[0][:, None] * gradient, None


class Splines(Family):
    r"""\(z = m + S\, T(\epsilon)\): spline and affine layers T, each an autoregressive transform in
    the direction in which drawing takes one pass (Kingma et al. 2016; Durkan et al. 2019).

    T is the identity to begin with, so that q is the Gaussian (m, S). With `landing` the gradient
    is that of Roeder et al. 2017, whose noise is zero where q is p: log q is computed by a frozen
    copy of the layers, through which z goes back to \(\epsilon\), k passes a layer.
    """

    def __init__(
        self,
        mean: Tensor,
        scale: Tensor,
        *,
        layers: int,
        hidden: int,
        bins: int,
        seed: int,
        landing: bool = True,
    ) -> None:
        zuko = _zuko()
        self.mean, self.scale, self.k = mean, scale, len(mean)
        spline = {
            "univariate": zuko.transforms.MonotonicRQSTransform,
            "shapes": [(bins,), (bins,), (bins - 1,)],
        }
        affine = {"univariate": zuko.transforms.MonotonicAffineTransform, "shapes": [(), ()]}
        network = {"hidden_features": (hidden, hidden), "activation": nn.Tanh}
        orders = [torch.arange(self.k), torch.arange(self.k).flip(0)]
        with fork_torch_rng(seed_for("flow layers", seed)):
            self.layers = nn.ModuleList(
                zuko.flows.MaskedAutoregressiveTransform(
                    self.k,
                    order=orders[i % 2],
                    **kind,
                    # one coordinate depends on no other: its transform has no network
                    **(network if self.k > 1 else {}),
                )
                for i in range(layers)
                for kind in (spline, affine)  # beyond five deviations a spline is the identity
            ).double()
        with torch.no_grad():
            for layer in self.layers:
                every = list(layer.parameters())
                # a network's last weights and biases; all parameters of a single coordinate
                for p in every if self.k == 1 else every[-2:]:
                    p.zero_()
        self.parameters = list(self.layers.parameters())
        self.landing = landing
        self._frozen = deepcopy(self.layers).requires_grad_(False)

    def _transform(self, e: Tensor) -> tuple[Tensor, Tensor]:
        u = e
        constant = self.scale.diagonal().log().sum() + 0.5 * self.k * math.log(2 * math.pi)
        log_q = -0.5 * e.square().sum(1) - constant
        for layer in self.layers:
            u, ladj = layer().call_and_ladj(u)
            log_q = log_q - ladj
        return self.mean + u @ self.scale.T, log_q

    def _log_prob(self, z: Tensor) -> Tensor:  # (n, k) -> (n,)
        """log q at z, by layers that take no gradient."""
        with torch.no_grad():
            for frozen, learnt in zip(self._frozen.parameters(), self.parameters, strict=True):
                frozen.copy_(learnt)
        e = torch.linalg.solve_triangular(self.scale, (z - self.mean).T, upper=False).T
        constant = self.scale.diagonal().log().sum() + 0.5 * self.k * math.log(2 * math.pi)
        log_q = -constant
        for layer in reversed(list(self._frozen)):
            e, ladj = layer().inv.call_and_ladj(e)
            log_q = log_q + ladj
        total: Tensor = log_q - 0.5 * e.square().sum(1)
        return total

    @torch.no_grad()
    def draw(self, e: Tensor) -> tuple[Tensor, Tensor]:
        return self._transform(e)

    def backward(self, e: Tensor, evaluate: WithGradient) -> Tensor:
        for p in self.parameters:
            p.grad = None
        z, log_q = self._transform(e)
        log_p = WithGivenGradient.apply(z, evaluate)  # type: ignore[no-untyped-call]
        finite = torch.isfinite(log_p.detach())
        # where p is 0 for some draws, the plain gradient of the others would push q towards them
        if self.landing or not bool(finite.all()):
            log_q = self._log_prob(z)
        log_ratios = torch.where(finite, log_p - log_q, 0.0)
        elbo = log_ratios.sum() / finite.sum().clamp(min=1)
        gradients = torch.autograd.grad(elbo, self.parameters, materialize_grads=True)
        for p, gradient in zip(self.parameters, gradients, strict=True):
            p.grad = gradient
        return torch.where(finite, log_ratios.detach(), -math.inf)


class Flow(VariationalSampler):
    r"""A normalizing flow that maximises the ELBO, and draws of it (Rezende and Mohamed 2015).

    First `Variational` fits a Gaussian with a full covariance; then monotonic rational-quadratic
    splines (Durkan et al. 2019) and affine layers, autoregressive by `zuko`, bend its draws. So the
    flow begins where the Gaussian ended, on the posterior's own scale, and its bound is higher. The
    gradient goes through the draws into the layers; of the density it takes values and gradients of
    whole batches alone.

    The chain's record is that of `Variational`: `log_evidence_bound`, and in `about` "mean" and
    "scale" of the Gaussian below, "gaussian_elbo" of its last steps, "elbo", "steps", "converged",
    "khat", "share".

    Args:
        layers: how many pairs of a spline and an affine layer. hidden: width of their networks.
            bins: of a spline.
        landing: learns with the gradient of Roeder et al. 2017, exact where q is p, at k passes
            through each layer; None: up to 8 coordinates, beyond which the plain one is quicker.
        draws: points at each step; by default 128. steps, lr, decay_lr, tolerance, minibatch,
            whiten, evidence_draws: see `Variational`.

    Raises:
        LowlandError: zuko is not installed. ConfigError, NonFiniteError: see `Variational`.

    >>> from lowland.samplers import Density, Job
    >>> skew = Density(lambda z: z[:, 0] - z[:, 0].exp(), 1, prior_scale=None)  # evidence 1
    >>> flow = Flow(layers=1).run(skew, Job(chains=2, samples=10))
    >>> flow.about["gaussian_elbo"] < -0.02 < flow.log_evidence_bound < 0.005
    True
    """

    name: ClassVar[str] = "flow"

    def __init__(
        self,
        *,
        layers: int = 3,
        hidden: int = 32,
        bins: int = 8,
        landing: bool | None = None,
        **options: Unpack[ElboKeywords],
    ) -> None:
        options.setdefault("draws", 128)
        super().__init__(**options)
        self.layers = checks.whole("layers", layers, least=1)
        self.hidden = checks.whole("hidden", hidden, least=1)
        self.bins = checks.whole("bins", bins, least=2)
        self.landing = landing

    def require_packages(self) -> None:
        _zuko()

    def family(
        self, before: Sequence[Family], density: Density, job: Job, saved: dict[str, Any] | None
    ) -> Family | None:
        if not before:
            return initial_normal(density, job, saved, full=True, whiten=self.options.whiten)
        if len(before) > 1:
            return None
        return Splines(
            **gaussian_moments(before[0]),
            layers=self.layers,
            hidden=self.hidden,
            bins=self.bins,
            seed=job.seed,
            landing=density.k <= _FEW if self.landing is None else self.landing,
        )

    def about(self, fits: Sequence[tuple[Family, ElboFit]]) -> dict[str, Any]:
        (gaussian, fit), _ = fits
        last = torch.tensor(fit.curve[-50:], dtype=torch.float64)
        return gaussian_moments(gaussian) | {"gaussian_elbo": float(last.nanmean())}


def _zuko() -> Any:
    return checks.package("zuko", extra="samplers", purpose='"flow"')
