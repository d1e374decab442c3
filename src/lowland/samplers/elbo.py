"""What fitted densities share: Adam on the ELBO until it stalls, and the `Chain` of their draws."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lowland import checks
from lowland.core.threads import using_threads
from lowland.errors import ConfigError, NonFiniteError
from lowland.progress import Report
from lowland.records import Chain
from lowland.samplers import base
from lowland.samplers.density import Density
from lowland.samplers.misfit import warn_unless_near
from lowland.tensor_files import restoring
from lowland.warn import warn

Evaluate = Callable[[Tensor, int], tuple[Tensor, Tensor]]  # (n, k), step -> (n,), (n, k)

_BLOCK = 50  # steps that the ELBO is averaged over before it is compared
_FALL = 0.2  # what the learning rate is multiplied with when the ELBO stalls
_FLOOR = 0.01  # the share of the first rate at which a falling one has fallen far enough
_CLIP = 10.0  # of the gradient's norm, in units of the root of how many parameters there are
_CHUNK = 2048  # points that are evaluated at once
_TAIL = 25  # ratios of which a fifth, five, can be fitted
_TRIES = 50  # rounds of drawing again where the density is not finite


class Family(ABC):
    """Densities q that are fitted: standard normal numbers e, moved by parameters.

    Attributes:
        k: how many coordinates. parameters: what is learnt.
    """

    k: int
    parameters: list[Tensor]

    def begun(self) -> dict[str, Tensor]:
        """What it was made of, beside what is learnt, for a stopped run to make it again."""
        return {}

    @abstractmethod
    def draw(self, e: Tensor) -> tuple[Tensor, Tensor]:  # (n, k) -> (n, k), (n,)
        """Points z of q, and log q at them; no gradients."""

    @abstractmethod
    def ascend(self, e: Tensor, evaluate: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        """Writes the gradient of the ELBO to the parameters; gives log p - log q of each draw,
        (n,), minus infinity where p is 0: such draws have no part in the gradient."""


@dataclass
class Ascent:
    """How the ELBO is climbed; options of `Variational` and `Flow`."""

    draws: int = 64
    steps: int = 5000
    rate: float = 0.01
    falling: bool = True
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        self.draws = checks.whole("draws", self.draws, least=1)
        self.steps = checks.whole("steps", self.steps, least=1)
        self.rate = checks.number("rate", self.rate, above=0)
        self.tolerance = checks.number("tolerance", self.tolerance, above=0)


@dataclass
class Climb:
    """An ascent under way: all that it takes to go on after a stop."""

    adam: torch.optim.Adam
    curve: list[float] = field(default_factory=list)  # the ELBO's estimate at each step
    best: float = -math.inf  # of the blocks so far
    rate: float = 0.0
    converged: bool = False

    def state(self, family: Family) -> dict[str, Any]:
        return family.begun() | {
            "parameters": [p.detach() for p in family.parameters],
            "adam": self.adam.state_dict(),
            "curve": torch.tensor(self.curve, dtype=torch.float64),
            "best": self.best,
            "rate": self.rate,
            "converged": self.converged,
        }


def climb(
    family: Family,
    evaluate: Evaluate,
    ascent: Ascent,
    generator: torch.Generator,
    *,
    saved: dict[str, Any] | None,
    keep: Callable[[dict[str, Any]], None],
    report: Report,
) -> Climb:
    """Adam, on fresh draws a step. When the mean of a block of steps is better than the best one by
    neither `tolerance` nor a standard error, the rate falls, and at its floor the climb is over.

    Raises:
        NonFiniteError: no draw of a whole block has a finite log density.
    """
    adam = torch.optim.Adam(family.parameters, lr=ascent.rate, maximize=True)
    now = Climb(adam, rate=ascent.rate)
    if saved is not None:
        with restoring("the checkpoint", "fit under way"), torch.no_grad():
            for mine, theirs in zip(family.parameters, saved["parameters"], strict=True):
                mine.copy_(theirs)
            adam.load_state_dict(saved["adam"])
            now.curve, now.best = saved["curve"].tolist(), float(saved["best"])
            now.rate, now.converged = float(saved["rate"]), bool(saved["converged"])
    bound = _CLIP * math.sqrt(sum(p.numel() for p in family.parameters))
    threads = torch.get_num_threads()

    def log_p(z: Tensor) -> tuple[Tensor, Tensor]:
        with using_threads(threads):
            return evaluate(z, len(now.curve))

    kept = time.monotonic()
    while not now.converged and len(now.curve) < ascent.steps:
        with using_threads(1):  # but for the density all is small
            e = torch.randn(ascent.draws, family.k, generator=generator, dtype=torch.float64)
            gains = family.ascend(e, log_p)
            # at the edge of a narrow ridge a gradient is so large that Adam would remember it long
            torch.nn.utils.clip_grad_norm_(family.parameters, bound)
            adam.step()
        fine = gains[torch.isfinite(gains)]
        now.curve.append(float(fine.mean()) if len(fine) else math.nan)
        if len(now.curve) % _BLOCK == 0:
            _judge(now, ascent)
        report(len(now.curve), ascent.steps)
        if time.monotonic() - kept > base.EVERY:
            keep(now.state(family))
            kept = time.monotonic()
    keep(now.state(family))
    return now


def _judge(now: Climb, ascent: Ascent) -> None:
    """At the end of a block: better, or the rate falls, or the end."""
    block = torch.tensor(now.curve[-_BLOCK:], dtype=torch.float64)
    block = block[torch.isfinite(block)]
    if not len(block):
        raise NonFiniteError(
            f"none of {_BLOCK * ascent.draws} draws has a finite log density at step "
            f"{len(now.curve)}; start nearer to the centre with start=, or take a smaller "
            "prior_scale."
        )
    mean = float(block.mean())
    error = float(block.std()) / math.sqrt(len(block)) if len(block) > 1 else 0.0
    if mean > now.best + max(ascent.tolerance, error):
        now.best = mean
        return
    now.best = max(now.best, mean)
    now.rate *= _FALL
    now.converged = not ascent.falling or now.rate < _FLOOR * ascent.rate
    for group in now.adam.param_groups:
        group["lr"] = now.rate


def warn_unless_converged(now: Climb, ascent: Ascent, name: str) -> None:
    """Warns where the steps ran out, and says what to do."""
    if not now.converged:
        warn(
            f"{name}: the ELBO was still rising after {len(now.curve)} steps, or its rate had not "
            f"fallen; raise steps={ascent.steps}, or draws={ascent.draws} where the curve in "
            'chain.about["elbo"] is rough.',
        )


@torch.no_grad()
def draws_of(
    family: Family, density: Density, n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, float]:
    """n draws of q where p is not 0: z (n, k), log p (n,), log q (n,), and the share of such draws.

    q is cut off where the density is 0 or not a number, and log q is that of the whole q.

    Raises:
        NonFiniteError: hardly a draw has a finite log density.
    """
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    have = asked = 0
    for _ in range(_TRIES):
        missing = n - have
        for start in range(0, missing, _CHUNK):
            size = min(_CHUNK, missing - start)
            e = torch.randn(size, family.k, generator=generator, dtype=torch.float64)
            with using_threads(1):
                z, log_q = family.draw(e)
            log_p = density(z)
            fine = torch.isfinite(log_p)
            found.append((z[fine], log_p[fine], log_q[fine]))
            have, asked = have + int(fine.sum()), asked + size
        if have >= n:
            z, log_p, log_q = (torch.cat(part) for part in zip(*found, strict=True))
            return z, log_p, log_q, have / asked
    raise NonFiniteError(
        f"{have} of {asked} draws of the fitted density have a finite log density; start nearer to "
        "the centre with start=, or take a smaller prior_scale."
    )


def khat_of(log_ratios: Tensor) -> float | None:
    r"""Pareto's \(\hat k\) of importance ratios p / q (Yao et al. 2018): below 0.7 q is near enough
    to p to correct its draws by weights; None without arviz-stats, and of fewer than 25 ratios,
    whose largest fifth is no tail.

    >>> ratios = -torch.linspace(0.9999, 0.0001, 1000).log()  # exponential: their tail has k = 1
    >>> round(khat_of(ratios), 1), khat_of(torch.zeros(100))
    (1.0, 0.0)
    >>> khat_of(ratios[:24]) is None
    True
    """
    try:
        from arviz_stats.base.array import array_stats
    except ImportError:
        return None
    if float(log_ratios.max() - log_ratios.min()) < 1e-6:
        return 0.0  # p and q agree, to rounding: there is no tail to fit
    if len(log_ratios) < _TAIL:
        return None
    # theirs is of 1 / exp(what it is given): a log-likelihood, as for leaving one out
    with np.errstate(all="ignore"):
        ratios = (log_ratios.max() - log_ratios).numpy()
        return float(array_stats.psislw(ratios)[1])  # type: ignore[no-untyped-call]


def chain_of(
    family: Family,
    density: Density,
    job: base.Job,
    generator: torch.Generator,
    *,
    name: str,
    evidence_draws: int,
    about: dict[str, Any],
    seconds: Callable[[], float],
) -> Chain:
    """Independent draws of q, with the ELBO of others. Where p is 0 in places q is cut off there,
    so that its ELBO stays finite: E[log p - log q] + log(share of q that is left)."""
    z, log_p, log_q, share = draws_of(family, density, evidence_draws, generator)
    gains = log_p - log_q
    khat = khat_of(gains)
    warn_unless_near(z, gains, khat, name)
    elbo = float(gains.mean()) + math.log(share)
    error = math.sqrt((float(gains.var()) + 1 - share) / len(gains))
    total = job.chains * job.samples
    z, log_density, _, _ = draws_of(family, density, total, generator)
    return Chain(
        coords=z.reshape(job.chains, job.samples, density.k),
        log_density=log_density.reshape(job.chains, job.samples),
        sampler=name,
        temperature=density.temperature,
        prior_scale=density.prior_scale,
        evaluations=density.evaluations,
        log_evidence_bound=elbo,
        about={
            "log_evidence_bound_se": error,
            "khat": khat,
            "share": share,
            "seed": job.seed,
            "seconds": seconds(),
        }
        | about,
    )


def first_point(density: Density, job: base.Job) -> Tensor:  # (k,)
    """Where a fit begins: the best of the points given, or the origin.

    Raises:
        NonFiniteError: where the log density is not finite at one of them.
    """
    if job.start is None:
        points = torch.zeros(1, density.k, dtype=torch.float64)
    else:
        points = job.starts(density, job.generator())
    return points[int(density.require_finite(points).argmax())]


def need_minibatches(density: Density, minibatch: bool) -> Evaluate:
    """The log density and its gradient from all data, or from those of a step.

    Raises:
        ConfigError: a density without minibatches where they are asked for.
    """
    if not minibatch:
        return lambda z, step: density.value_and_grad(z)
    if not density.has_minibatch:
        raise ConfigError("minibatch=True: this log density has no minibatches; leave it out.")
    return density.minibatch
