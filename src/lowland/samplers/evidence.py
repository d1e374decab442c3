"""The evidence of a subspace: how well it explains the data, all its weights together."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lowland.core import LossSurface
from lowland.errors import ConfigError
from lowland.geometry import Shape
from lowland.progress import Progress, reporting
from lowland.records import Evidence
from lowland.samplers.base import Job
from lowland.samplers.density import Density
from lowland.samplers.elliptical import EllipticalSlice
from lowland.samplers.quadrature import Grid
from lowland.samplers.subspace import log_density

METHODS = ("grid", "tempering")
_GRID = 3  # coordinates up to which a grid is exact and cheap
_KEPT = 0.5  # effective share of particles after a step in temperature


def evidence(
    sub: Shape,
    surface: LossSurface,
    *,
    method: str | None = None,
    prior_scale: float = 1.0,
    temperature: float = 1.0,
    particles: int = 128,
    moves: int = 5,
    repeats: int = 4,
    seed: int = 0,
    loader: Iterable[Any] | None = None,
    batchnorm: str = "refresh",
    strategy: str | None = None,
    chunk: int | None = None,
    progress: Progress = False,
) -> Evidence:
    r"""\(\log Z = \log \int p(D | \hat w + z B)^{1/T}\, N(z; 0, s^2 I)\, dz\), of a subspace.

    By quadrature in up to three coordinates, else by sequential Monte Carlo (Del Moral et al.
    2006) over the power of the likelihood, from the prior to the posterior: each step of the power
    leaves half of the particles effective, then they are drawn anew and moved by elliptical slice
    sampling. Repeats, which have nothing but these steps in common, give the standard error.

    At T != 1 it is the normaliser of the tempered posterior, which compares subspaces at the same T
    alone.

    Args:
        sub, surface: as `ll.infer` takes them. method: "grid", "tempering", or None: what fits.
        prior_scale: s, in units of the directions B. temperature: T.
        particles, moves, repeats: of "tempering": points, transitions a step, runs.

    Raises:
        ConfigError: a flat prior; a grid in more than three coordinates; fewer than two repeats or
            particles.

    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> from lowland.geometry import Subspace
    >>> data = [(torch.ones(1, 1), torch.zeros(1, 1))]
    >>> surface = LossSurface(nn.Linear(1, 1, bias=False), Regression(noise_variance=1.0), data)
    >>> found = evidence(Subspace(torch.zeros(1), torch.ones(1, 1)), surface)
    >>> round(found.log_evidence, 3)  # log N(0; 0, 2)
    -1.266
    """
    if method not in (None, *METHODS):
        raise ConfigError(f"method: expected one of {', '.join(METHODS)}, got {method!r}.")
    _require_prior(prior_scale)
    density = log_density(
        sub,
        surface,
        prior_scale=prior_scale,
        temperature=temperature,
        loader=loader,
        batchnorm=batchnorm,
        strategy=strategy,
        chunk=chunk,
    )
    if method == "grid" or (method is None and sub.k <= _GRID):
        chain = Grid().run(density, Job(seed=seed, progress=progress))
        assert chain.log_evidence is not None
        return Evidence(chain.log_evidence, 0.0, "grid", density.evaluations, chain.about)
    return tempered(
        density, particles=particles, moves=moves, repeats=repeats, seed=seed, progress=progress
    )


def tempered(
    density: Density,
    *,
    particles: int = 128,
    moves: int = 5,
    repeats: int = 4,
    seed: int = 0,
    progress: Progress = False,
) -> Evidence:
    """The evidence of any log density with a Gaussian prior, by sequential Monte Carlo."""
    if particles < 2 or repeats < 2 or moves < 1:
        raise ConfigError(
            "evidence: expected at least two particles, two repeats and one move, got "
            f"{particles}, {repeats} and {moves}."
        )
    _require_prior(density.prior_scale)
    assert density.prior_scale is not None
    generator = torch.Generator().manual_seed(seed)
    # every repeat's particles go through the density together, and share their steps in power
    several = repeats * particles
    z = torch.randn(several, density.k, generator=generator, dtype=torch.float64)
    z = density.prior_scale * z
    value = density.likelihood(z)
    power, total = 0.0, torch.zeros(repeats, dtype=torch.float64)
    steps = 0
    with reporting(progress, "evidence") as report:
        while power < 1:
            step = _step(value, 1 - power)
            weights = step * value.reshape(repeats, particles)
            total += weights.logsumexp(1) - math.log(particles)
            power = 1.0 if step >= 1 - power else power + step
            steps += 1
            report(round(1000 * power), 1000)
            if power == 1:
                break  # the particles themselves are not asked for
            chosen = _drawn(weights.softmax(1), generator)
            z = z.reshape(repeats, particles, -1).gather(
                1, chosen[..., None].expand(-1, -1, density.k)
            )
            z, value = _moved(density, z.flatten(0, 1), power, moves, seed + steps)
    # the mean of the Zs is unbiased; its error in the logarithm by the delta method
    log = total.logsumexp(0) - math.log(repeats)
    spread = (total - log).exp().std() / math.sqrt(repeats)
    about = {"power_steps": steps, "repeats": total}
    return Evidence(float(log), float(spread), "tempering", density.evaluations, about)


def _require_prior(scale: float | None) -> None:
    if scale is None:
        raise ConfigError(
            "prior_scale: a flat prior has no integral, so there is no evidence; give a standard "
            "deviation."
        )


def _step(value: Tensor, most: float) -> float:
    """How far the power may go so that half of all particles stay effective."""

    def effective(step: float) -> float:
        weights = (step * value).softmax(0)
        return float(1 / weights.square().sum()) / len(value)

    if effective(most) >= _KEPT:
        return most
    low, high = 0.0, most
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if effective(middle) >= _KEPT else (low, middle)
    return max(low, most * 1e-12)


def _drawn(weights: Tensor, generator: torch.Generator) -> Tensor:  # (repeats, n) -> (repeats, n)
    """Systematic resampling: each particle as often as its weight says, up to rounding."""
    n = weights.shape[1]
    offsets = torch.rand(len(weights), 1, generator=generator, dtype=torch.float64)
    at = (torch.arange(n, dtype=torch.float64) + offsets) / n
    passed = weights.cumsum(1)
    return torch.searchsorted(passed / passed[:, -1:], at, right=True).clamp_max(n - 1)


def _moved(
    density: Density, z: Tensor, power: float, moves: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Particles after transitions that leave prior times likelihood^power as it is."""
    part = Density(
        lambda points: power * density.likelihood(points),
        density.k,
        prior_scale=density.prior_scale,
    )
    job = Job(chains=len(z), samples=1, warmup=moves - 1, start=z, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one draw of each says nothing of R-hat
        sampler = EllipticalSlice()
        sampler.run(part, job)
    # what it compares slices by: without the prior, whose rounding a small power would magnify
    return sampler.state["z"], sampler.state["likelihood"] / power
