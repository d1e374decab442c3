"""Harder oracles than a Gaussian: a banana, and calibration by simulation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowland.records import Chain
from lowland.samplers import Density, Job, MarkovChain

SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


def banana(*, temperature: float = 1.5, prior_scale: float = 1.2) -> Density:
    """Rosenbrock's valley as a likelihood, with a Gaussian prior."""

    def log_likelihood(z: Tensor) -> Tensor:
        return -0.5 * (z[:, 0] - 0.7) ** 2 - 0.5 * ((z[:, 1] - z[:, 0] ** 2) / 0.3) ** 2

    return Density(log_likelihood, 2, prior_scale=prior_scale, temperature=temperature)


def skew() -> Density:
    """A line with a narrow mode and a wide one, to either side of 0."""

    def log_likelihood(z: Tensor) -> Tensor:
        x = z[:, 0]
        return torch.logaddexp(-0.5 * ((x - 1.5) / 0.3) ** 2, 0.5 - 0.5 * ((x + 0.3) / 0.15) ** 2)

    return Density(log_likelihood, 1)


def marginal_errors(coords: Tensor, exact: Chain) -> Tensor:
    """By how many standard errors the shares of draws (chains, S, k) below the exact marginals'
    quantiles are off."""
    from arviz_stats.base import array_stats

    weights, off = exact.weights.flatten(), []
    for axis in range(coords.shape[-1]):
        points, order = exact.draws[:, axis].sort()
        levels = weights[order].cumsum(0)
        for share in SHARES:
            at = int(torch.searchsorted(levels, torch.tensor(share, dtype=levels.dtype)))
            # between two columns of the lattice, so that no point lies on the border
            value = points[at]
            column = points == value
            middle = float(levels[~column & (points < value)].max()) + 0.5 * float(
                weights[order][column].sum()
            )
            below = (coords[..., axis] < value).double()
            n = float(array_stats.ess(below.numpy(), chain_axis=0, draw_axis=1, method="mean"))
            off.append((float(below.mean()) - middle) / math.sqrt(middle * (1 - middle) / n))
    return torch.tensor(off)


class Replicates(Density):
    r"""A posterior a chain: rows of points know whose data they are by `rows`, set by `knowing`.

    \(y_r = f(z_r) + \sqrt T e_r\) with \(z_r \sim N(0, s^2 I)\) and f nonlinear: at temperature T
    the likelihood of noise 1 becomes that of noise \(\sqrt T\), up to a constant.
    """

    def __init__(self, n: int, *, prior_scale: float, temperature: float, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        normal = torch.randn(2, n, 2, generator=generator, dtype=torch.float64)
        self.truth = prior_scale * normal[0]
        self.y = self.f(self.truth) + math.sqrt(temperature) * normal[1]
        self.rows: Tensor | slice = slice(None)
        super().__init__(self._own, 2, prior_scale=prior_scale, temperature=temperature)

    @staticmethod
    def f(z: Tensor) -> Tensor:
        return torch.stack([z[:, 0] + 0.3 * z[:, 1] ** 2, 1.5 * z[:, 1]], 1)

    def _own(self, z: Tensor) -> Tensor:
        return -0.5 * (self.y[self.rows] - self.f(z)).square().sum(1)


def knowing(sampler: type[MarkovChain]) -> type[MarkovChain]:
    """The same sampler, which tells a density of replicates whose points it evaluates."""

    class Knowing(sampler):
        def advance(self, density, chains, warming):
            density.rows = chains
            return super().advance(density, chains, warming)

    return Knowing


def calibration(sampler: MarkovChain, *, thin: int = 8, seed: int = 0) -> list[float]:
    """p-values of uniform ranks, of both coordinates, their product and the log-likelihood, over
    600 posteriors whose data were simulated (Talts et al. 2018)."""
    from scipy import stats

    density = Replicates(600, prior_scale=1.7, temperature=2.0, seed=seed)
    truth = density.truth
    chain = sampler.run(density, Job(chains=600, samples=19, thin=thin, warmup=80, seed=seed))
    density.rows = slice(None)
    draws = chain.coords

    likelihoods = torch.stack([density.likelihood(z) for z in draws.unbind(1)], 1)
    pairs = [
        (draws[..., 0], truth[:, 0]),
        (draws[..., 1], truth[:, 1]),
        (draws.prod(-1), truth.prod(-1)),
        (likelihoods, density.likelihood(truth)),
    ]
    p_values = []
    for values, true in pairs:
        counts = torch.bincount((values < true[:, None]).sum(1), minlength=20)  # 20 ranks
        p_values.append(float(stats.chisquare(counts.numpy()).pvalue))
    return p_values
