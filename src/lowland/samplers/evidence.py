"""The evidence of a subspace: how well its weights explain the data on average."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any, Unpack

import torch
from torch import Tensor

from lowland import checks
from lowland.core import LossSurface
from lowland.core.options import EvalKeywords
from lowland.core.seeds import seed_for, stream
from lowland.errors import ConfigError
from lowland.geometry import Shape
from lowland.progress import Progress, reporting
from lowland.records import Evidence
from lowland.samplers.density import Density
from lowland.samplers.elliptical import EllipticalSlice
from lowland.samplers.job import Job
from lowland.samplers.quadrature import Grid
from lowland.samplers.subspace_density import log_density
from lowland.warn import warn

METHODS = ("grid", "tempering")
_MAX_GRID_K = 3  # coordinates up to which a grid is exact and cheap
_EFFECTIVE = 0.5  # effective share of particles after a step of the power
_CORRELATED = 0.1  # of particles with those resampled: above it they move further
_FIRST_MOVES = 5  # transitions before the correlation is first computed
_MAX_MOVES = 320  # transitions at each step of the power
_LARGE_ERROR = 0.5  # nats of standard error above which there is a warning


def evidence(
    sub: Shape,
    surface: LossSurface,
    *,
    method: str | None = None,
    prior_scale: float = 1.0,
    temperature: float = 1.0,
    particles: int = 128,
    moves: int | None = None,
    repeats: int = 4,
    seed: int = 0,
    loader: Iterable[Any] | None = None,
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> Evidence:
    r"""\(\log Z = \log \int p(D | \hat w + z B)^{1/T}\, N(z; 0, s^2 I)\, dz\), of a subspace.

    By quadrature in up to three coordinates, else by sequential Monte Carlo (Del Moral et al.
    2006) over the power of the likelihood, from the prior to the posterior. Each step of the power
    leaves half of the particles effective; they are resampled, and moved until they hardly
    correlate with where they were, by elliptical slice sampling about a Gaussian with the moments
    of the other repeats' particles (after Nishihara et al. 2014). Repeats share only these steps
    and Gaussians, and give the standard error; where it is above half a nat, log Z is likely too
    small, and there is a warning.

    At T != 1 it is the normaliser of the tempered posterior, which compares subspaces at the same
    T only.

    Args:
        sub, surface: as `ll.infer` takes them. method: "grid", "tempering", or None: by k.
        prior_scale: s, in units of the directions B. temperature: T.
        particles, moves, repeats: for "tempering": points, transitions at each step, runs. With
            moves=None 5 or more, until coordinates correlate by less than 0.1 with those before.
        loader, options: as for `ll.infer`.

    Raises:
        ConfigError: a flat prior; a grid in more than three coordinates; fewer than two repeats or
            particles.

    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> from lowland.geometry import Subspace
    >>> data = [(torch.ones(1, 1), torch.zeros(1, 1))]
    >>> surface = LossSurface(nn.Linear(1, 1, bias=False), Regression(noise_variance=1.0), data)
    >>> result = evidence(Subspace(torch.zeros(1), torch.ones(1, 1)), surface)
    >>> round(result.log_evidence, 3)  # log N(0; 0, 2)
    -1.266
    """
    checks.choice("method", method, (None, *METHODS))
    _require_prior(prior_scale)
    density = log_density(
        sub,
        surface,
        prior_scale=prior_scale,
        temperature=temperature,
        loader=loader,
        **options,
    )
    if method == "grid" or (method is None and sub.k <= _MAX_GRID_K):
        chain = Grid().run(density, Job(seed=seed, progress=progress))
        assert chain.log_evidence is not None
        return Evidence(chain.log_evidence, 0.0, "grid", density.evaluations, chain.about)
    return sequential_monte_carlo(
        density, particles=particles, moves=moves, repeats=repeats, seed=seed, progress=progress
    )


def sequential_monte_carlo(
    density: Density,
    *,
    particles: int = 128,
    moves: int | None = None,
    repeats: int = 4,
    seed: int = 0,
    progress: Progress = False,
) -> Evidence:
    """The evidence of any log density with a Gaussian prior, by sequential Monte Carlo."""
    particles = checks.whole("particles", particles, least=2)
    repeats = checks.whole("repeats", repeats, least=2)
    moves = None if moves is None else checks.whole("moves", moves, least=1)
    seed = checks.seed(seed)
    _require_prior(density.prior_scale)
    assert density.prior_scale is not None
    generator = stream("evidence", seed)
    z = torch.randn(repeats, particles, density.k, generator=generator, dtype=torch.float64)
    z = density.prior_scale * z
    value = density.likelihood(z.flatten(0, 1)).reshape(repeats, particles)
    power, total = 0.0, torch.zeros(repeats, dtype=torch.float64)
    steps, most_moves = 0, 0
    with reporting(progress, "evidence") as report:
        while power < 1:
            step = _power_step(value.flatten(), 1 - power)  # all repeats take the same
            weights = step * value
            total += weights.logsumexp(1) - math.log(particles)
            power = 1.0 if step >= 1 - power else power + step
            steps += 1
            report(round(1000 * power), 1000)
            if power == 1:
                break  # nothing depends on the last particles
            gaussians = _gaussians(z, weights)
            indices = _resample(weights.softmax(1), generator)
            z = z.gather(1, indices[..., None].expand(-1, -1, density.k))
            z, value, count = _move_particles(density, z, power, gaussians, moves, (seed, steps))
            most_moves = max(most_moves, count)
    # the mean of the Zs is unbiased. The delta method bounds its error in the logarithm by a nat,
    # however far apart the repeats are; the error of the mean of the logarithms has no bound
    log = total.logsumexp(0) - math.log(repeats)
    spread = max((total - log).exp().std(), total.std()) / math.sqrt(repeats)
    if spread > _LARGE_ERROR:
        warn(
            f"evidence: the {repeats} repeats lie {float(total.std()):.2g} nats apart (standard "
            f"deviation), and their mean is then too small rather than too large; raise "
            f"particles={particles} or moves= (at most {most_moves} at each step).",
        )
    about = {"power_steps": steps, "repeats": total, "moves": most_moves}
    return Evidence(float(log), float(spread), "tempering", density.evaluations, about)


def _require_prior(scale: float | None) -> None:
    if scale is None:
        raise ConfigError(
            "prior_scale: a flat prior has no integral, so there is no evidence; give a standard "
            "deviation."
        )


def _power_step(value: Tensor, most: float) -> float:
    """The largest step of the power after which half of all particles are effective."""

    def effective(step: float) -> float:
        weights = (step * value).softmax(0)
        return float(1 / weights.square().sum()) / len(value)

    if effective(most) >= _EFFECTIVE:
        return most
    low, high = 0.0, most
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if effective(middle) >= _EFFECTIVE else (low, middle)
    return max(low, most * 1e-12)


def _resample(
    weights: Tensor, generator: torch.Generator
) -> Tensor:  # (repeats, n) -> (repeats, n)
    """Systematic resampling: each particle in proportion to its weight, up to rounding."""
    n = weights.shape[1]
    offsets = torch.rand(len(weights), 1, generator=generator, dtype=torch.float64)
    at = (torch.arange(n, dtype=torch.float64) + offsets) / n
    passed = weights.cumsum(1)
    return torch.searchsorted(passed / passed[:, -1:], at, right=True).clamp_max(n - 1)


def _gaussians(z: Tensor, logs: Tensor) -> tuple[Tensor, Tensor]:  # (R, n, k), (R, n)
    """For each repeat the mean (R, 1, k) and the Cholesky factor (R, k, k) of the covariance of the
    other repeats' weighted particles. Moments of its own particles would bias it towards them.

    With few effective particles the covariance shrinks towards its diagonal, which is positive.
    """
    repeats, k = len(z), z.shape[2]
    others = logs.repeat(repeats, 1, 1)  # row r for repeat r
    others[range(repeats), range(repeats)] = -math.inf
    weights = others.flatten(1).softmax(1)  # (R, R n)
    points = z.flatten(0, 1)
    mean = (weights @ points)[:, None]
    centred = points - mean  # (R, R n, k)
    covariance = (weights[..., None] * centred).mT @ centred
    effective = 1 / weights.square().sum(1)
    share = (k / (k + effective))[:, None, None]
    diagonal = torch.diag_embed(covariance.diagonal(dim1=1, dim2=2).clamp_min(1e-300))
    covariance = (1 - share) * covariance + (share + 1e-12) * diagonal
    return mean, torch.linalg.cholesky(covariance)


def _move_particles(
    density: Density,
    z: Tensor,  # (R, n, k)
    power: float,
    gaussians: tuple[Tensor, Tensor],
    moves: int | None,
    key: tuple[int, ...],
) -> tuple[Tensor, Tensor, int]:
    """Particles after transitions that leave prior times likelihood^power invariant, their
    likelihood (R, n), and the number of transitions."""
    mean, factor = gaussians
    u = torch.linalg.solve_triangular(factor, (z - mean).mT, upper=False).mT
    movers = [_Mover(density, power, *one) for one in zip(mean, factor, u, strict=True)]
    done, block = 0, _FIRST_MOVES if moves is None else moves
    while True:
        for r, mover in enumerate(movers):
            mover.move(block, seed=seed_for("evidence moves", *key, r, done))
        done += block
        now = torch.stack([mover.u for mover in movers])
        if moves is not None or done >= _MAX_MOVES or _correlation(u, now) < _CORRELATED:
            particles = [mover.particles() for mover in movers]
            z, value = (torch.stack(part) for part in zip(*particles, strict=True))
            return z, value, done
        block = done  # the next block doubles the number


class _Mover:
    """Elliptical slice sampling of prior times likelihood^power about N(m, L L^T).

    In u, z = m + L u, that density is N(u; 0, I) times a rest, which is nearly constant where the
    density is nearly that Gaussian.
    """

    def __init__(
        self, density: Density, power: float, mean: Tensor, factor: Tensor, u: Tensor
    ) -> None:
        self.density, self.power, self.mean, self.factor, self.u = density, power, mean, factor, u
        self.part = Density(self._log_rest, density.k)
        self.sampler = EllipticalSlice()

    def move(self, transitions: int, *, seed: int) -> None:
        job = Job(
            chains=len(self.u),
            samples=1,
            warmup=transitions - 1,
            start=self.u,
            seed=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one draw of each chain has no R-hat
            self.sampler.run(self.part, job)
        self.u = self.sampler.state["z"]

    def particles(self) -> tuple[Tensor, Tensor]:
        """The particles (n, k) and their likelihood (n,)."""
        z = self._points(self.u)
        # from the last comparison, not evaluated again
        return z, (self.sampler.state["likelihood"] - self._rest(self.u, z)) / self.power

    def _points(self, u: Tensor) -> Tensor:
        return self.mean + u @ self.factor.T

    def _rest(self, u: Tensor, z: Tensor) -> Tensor:
        """The log of the rest without the likelihood, up to a constant."""
        return self.density.log_prior(z) + 0.5 * u.square().sum(1)

    def _log_rest(self, u: Tensor) -> Tensor:
        z = self._points(u)
        return self.power * self.density.likelihood(z) + self._rest(u, z)


def _correlation(before: Tensor, now: Tensor) -> float:  # (R, n, k), (R, n, k)
    """The mean over repeats and coordinates of their correlation."""
    a, b = (x - x.mean(1, keepdim=True) for x in (before, now))
    size = (a.square().sum(1) * b.square().sum(1)).sqrt()
    return float(((a * b).sum(1) / size.clamp_min(1e-300)).mean())
