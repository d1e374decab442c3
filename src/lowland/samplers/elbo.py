"""Variational inference: Adam on the ELBO until it stalls, and the `Chain` of draws of the fit."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from lowland import checks
from lowland.core.threads import using_threads
from lowland.errors import ConfigError, NonFiniteError
from lowland.progress import Report
from lowland.records import Chain
from lowland.samplers.density import Density
from lowland.samplers.job import Job, Run
from lowland.samplers.misfit import warn_if_far
from lowland.tensor_files import restoring
from lowland.warn import warn

Evaluate = Callable[[Tensor, int], tuple[Tensor, Tensor]]  # (n, k), step -> (n,), (n, k)

_BLOCK = 50  # steps over which the ELBO is averaged before it is compared
_DECAY = 0.2  # factor of the learning rate when the ELBO stalls
_FLOOR = 0.01  # share of the first learning rate below which the fit has converged
_CLIP = 10.0  # of the gradient's norm, in units of the root of how many parameters there are
_CHUNK = 2048  # points that are evaluated at once
_TAIL = 25  # ratios of which a fifth, five, can be fitted
_TRIES = 50  # rounds of further draws where the density is not finite


class Family(ABC):
    """A variational family: densities q whose draws are transformed standard normal numbers e.

    Attributes:
        k: number of coordinates. parameters: tensors that are learnt.
    """

    k: int
    parameters: list[Tensor]

    def constants(self) -> dict[str, Tensor]:
        """Tensors that are not learnt and that a resumed run needs to build the family again."""
        return {}

    @abstractmethod
    def draw(self, e: Tensor) -> tuple[Tensor, Tensor]:  # (n, k) -> (n, k), (n,)
        """Points z of q, and log q at them; no gradients."""

    @abstractmethod
    def backward(self, e: Tensor, evaluate: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        """Writes the gradient of the ELBO to the parameters and returns log p - log q of each draw,
        (n,). It is minus infinity where p is 0; such draws do not enter the gradient."""


class ElboKeywords(TypedDict, total=False):
    """The keyword arguments that stand for `ElboOptions`."""

    draws: int
    steps: int
    lr: float
    decay_lr: bool
    tolerance: float
    minibatch: bool
    whiten: bool
    evidence_draws: int


@dataclass(frozen=True)
class ElboOptions:
    """How the ELBO is maximised and estimated; documented at `Variational`."""

    draws: int = 64
    steps: int = 5000
    lr: float = 0.01
    decay_lr: bool = True
    tolerance: float = 1e-3
    minibatch: bool = False
    whiten: bool = True
    evidence_draws: int = 2048

    def __post_init__(self) -> None:
        checks.fields(self, checks.whole, "draws", "steps", least=1)
        checks.fields(self, checks.whole, "evidence_draws", least=2)
        checks.fields(self, checks.number, "lr", "tolerance", above=0)


@dataclass
class ElboFit:
    """A fit under way: the optimizer's state and the ELBO so far."""

    adam: torch.optim.Adam
    lr: float
    curve: list[float] = field(default_factory=list)  # the ELBO's estimate at each step
    best: float = -math.inf  # the best mean of a block
    converged: bool = False

    def state(self, family: Family) -> dict[str, Any]:
        """What a stopped run needs to go on."""
        return family.constants() | {
            "parameters": [p.detach() for p in family.parameters],
            "adam": self.adam.state_dict(),
            "curve": torch.tensor(self.curve, dtype=torch.float64),
            "best": self.best,
            "lr": self.lr,
            "converged": self.converged,
        }


def maximize_elbo(
    family: Family,
    evaluate: Evaluate,
    options: ElboOptions,
    run: Run,
    *,
    saved: dict[str, Any] | None,
    state: Callable[[dict[str, Any]], dict[str, Any]],
    report: Report,
) -> ElboFit:
    """Adam with fresh draws at each step. When the mean of a block of steps exceeds the best one by
    neither `tolerance` nor a standard error, the learning rate falls; at its floor the fit ends.

    Args:
        run: is saved now and then. saved: `ElboFit.state` of a stopped fit. state: of the whole run
            from that of the fit.

    Raises:
        NonFiniteError: no draw of a whole block has a finite log density.
    """
    adam = torch.optim.Adam(family.parameters, lr=options.lr, maximize=True)
    fit = ElboFit(adam, lr=options.lr)
    if saved is not None:
        with restoring("the checkpoint", "fit under way"), torch.no_grad():
            for parameter, value in zip(family.parameters, saved["parameters"], strict=True):
                parameter.copy_(value)
            adam.load_state_dict(saved["adam"])
            fit.curve, fit.best = saved["curve"].tolist(), float(saved["best"])
            fit.lr, fit.converged = float(saved["lr"]), bool(saved["converged"])
    bound = _CLIP * math.sqrt(sum(p.numel() for p in family.parameters))
    threads = torch.get_num_threads()

    def log_p(z: Tensor) -> tuple[Tensor, Tensor]:
        with using_threads(threads):
            return evaluate(z, len(fit.curve))

    while not fit.converged and len(fit.curve) < options.steps:
        with using_threads(1):  # all tensors but the density's are small
            e = torch.randn(options.draws, family.k, generator=run.generator, dtype=torch.float64)
            log_ratios = family.backward(e, log_p)
            # at the edge of a narrow ridge gradients would dominate Adam's averages for long
            torch.nn.utils.clip_grad_norm_(family.parameters, bound)
            adam.step()
        finite = log_ratios[torch.isfinite(log_ratios)]
        fit.curve.append(float(finite.mean()) if len(finite) else math.nan)
        if len(fit.curve) % _BLOCK == 0:
            _end_block(fit, options)
        report(len(fit.curve), options.steps)
        run.save_if_due(lambda: state(fit.state(family)))
    run.save(state(fit.state(family)))
    return fit


def _end_block(fit: ElboFit, options: ElboOptions) -> None:
    """Compares a block with the best one: lowers the learning rate, or ends the fit."""
    block = torch.tensor(fit.curve[-_BLOCK:], dtype=torch.float64)
    block = block[torch.isfinite(block)]
    if not len(block):
        raise NonFiniteError(
            f"none of {_BLOCK * options.draws} draws has a finite log density at step "
            f"{len(fit.curve)}; start nearer to the centre with start=, or take a smaller "
            "prior_scale."
        )
    mean = float(block.mean())
    error = float(block.std()) / math.sqrt(len(block)) if len(block) > 1 else 0.0
    if mean > fit.best + max(options.tolerance, error):
        fit.best = mean
        return
    fit.best = max(fit.best, mean)
    fit.lr *= _DECAY
    fit.converged = not options.decay_lr or fit.lr < _FLOOR * options.lr
    for group in fit.adam.param_groups:
        group["lr"] = fit.lr


def warn_if_not_converged(fit: ElboFit, options: ElboOptions, name: str) -> None:
    """Warns where the fit ended at its last step."""
    if not fit.converged:
        warn(
            f"{name}: the ELBO was still rising after {len(fit.curve)} steps, or its learning rate "
            f"had not fallen; raise steps={options.steps}, or draws={options.draws} where the "
            'curve in chain.about["elbo"] is rough.',
        )


@torch.no_grad()
def finite_draws(
    family: Family, density: Density, n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, float]:
    """n draws of q where p is not 0: z (n, k), log p (n,), log q (n,), and the share of such draws.

    q is truncated where the density is 0 or not a number; log q is that of the whole q.

    Raises:
        NonFiniteError: too few draws have a finite log density.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    count = total = 0
    for _ in range(_TRIES):
        missing = n - count
        for start in range(0, missing, _CHUNK):
            size = min(_CHUNK, missing - start)
            e = torch.randn(size, family.k, generator=generator, dtype=torch.float64)
            with using_threads(1):
                z, log_q = family.draw(e)
            log_p = density(z)
            finite = torch.isfinite(log_p)
            parts.append((z[finite], log_p[finite], log_q[finite]))
            count, total = count + int(finite.sum()), total + size
        if count >= n:
            z, log_p, log_q = (torch.cat(part) for part in zip(*parts, strict=True))
            return z, log_p, log_q, count / total
    raise NonFiniteError(
        f"{count} of {total} draws of the fitted density have a finite log density; start nearer "
        "to the centre with start=, or take a smaller prior_scale."
    )


def pareto_khat(log_ratios: Tensor) -> float | None:
    r"""Pareto's \(\hat k\) of importance ratios p / q (Yao et al. 2018): below 0.7 importance
    weights can correct the draws of q. None without arviz-stats, and for fewer than 25 ratios,
    whose largest fifth is too few for a tail.

    >>> ratios = -torch.linspace(0.9999, 0.0001, 1000).log()  # exponential: their tail has k = 1
    >>> round(pareto_khat(ratios), 1), pareto_khat(torch.zeros(100))
    (1.0, 0.0)
    >>> pareto_khat(ratios[:24]) is None
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
    # psislw takes log-likelihoods, as for leave-one-out, and fits 1 / exp of them
    with np.errstate(all="ignore"):
        ratios = (log_ratios.max() - log_ratios).numpy()
        return float(array_stats.psislw(ratios)[1])  # type: ignore[no-untyped-call]


def draw_chain(family: Family, run: Run, *, evidence_draws: int, about: dict[str, Any]) -> Chain:
    """Independent draws of q, with an ELBO from separate draws. Where p is 0, q is truncated, so
    that the ELBO stays finite: E[log p - log q] + log(share of q that is left)."""
    job, density = run.job, run.density
    z, log_p, log_q, share = finite_draws(family, density, evidence_draws, run.generator)
    log_ratios = log_p - log_q
    khat = pareto_khat(log_ratios)
    warn_if_far(z, log_ratios, khat, run.sampler)
    elbo = float(log_ratios.mean()) + math.log(share)
    error = math.sqrt((float(log_ratios.var()) + 1 - share) / len(log_ratios))
    z, log_density, _, _ = finite_draws(family, density, job.chains * job.samples, run.generator)
    evidence = {"log_evidence_bound_se": error, "khat": khat, "share": share, "seed": job.seed}
    return run.chain(
        z.reshape(job.chains, job.samples, density.k),
        log_density.reshape(job.chains, job.samples),
        log_evidence_bound=elbo,
        about=evidence | about,
    )


def start_point(density: Density, job: Job) -> Tensor:  # (k,)
    """Where a fit begins: the point of `start` with the greatest density, or the origin.

    Raises:
        NonFiniteError: the log density is not finite at one of them.
    """
    if job.start is None:
        points = torch.zeros(1, density.k, dtype=torch.float64)
    else:
        points = job.start_points(density, job.generator())
    return points[int(density.require_finite(points).argmax())]


def evaluation_function(density: Density, minibatch: bool) -> Evaluate:
    """The log density and its gradient from all data, or from the minibatch of a step.

    Raises:
        ConfigError: `minibatch=True` and a density without minibatches.
    """
    if not minibatch:
        return lambda z, step: density.value_and_grad(z)
    if not density.has_minibatch:
        raise ConfigError("minibatch=True: this log density has no minibatches; leave it out.")
    return density.minibatch
