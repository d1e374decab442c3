"""Bayesian inference in a subspace of the weights, with any of the samplers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Unpack

from torch import Tensor

from lowland.artifacts import Checkpoint
from lowland.core import LossSurface
from lowland.core.options import EvalKeywords
from lowland.errors import ConfigError
from lowland.files import PathLike
from lowland.geometry import Shape
from lowland.progress import Progress
from lowland.records import Chain
from lowland.samplers.base import Sampler
from lowland.samplers.job import Job
from lowland.samplers.registry import sampler_of
from lowland.samplers.subspace_density import log_density, settings
from lowland.samplers.tune import is_search, require_numbers_or_tune, tune_temperature


def infer(
    sub: Shape,
    surface: LossSurface,
    *,
    sampler: str | Sampler = "ess",
    prior_scale: float | Sequence[float] | str | None = 1.0,
    temperature: float | Sequence[float] | str = 1.0,
    validation: Iterable[Any] | None = None,
    chains: int = 16,
    samples: int | None = None,
    warmup: int | None = None,
    thin: int = 1,
    start: Tensor | None = None,
    seed: int = 0,
    loader: Iterable[Any] | None = None,
    checkpoint: Checkpoint | PathLike | None = None,
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> Chain:
    r"""Samples \(p(z | D) \propto p(D | \hat w + z B)^{1/T}\, N(z; 0, s^2 I)\), B the directions.

    Izmailov et al. 2019. `chain.posterior()` has the draws as weights, for `ll.predict`. Each log
    density is a forward pass over the data; `chain.evaluations` counts them, tens of thousands with
    the defaults.

    Args:
        sub: a `Subspace` or a `Plane`. surface: model, task and the data D.
        sampler: "ess" (elliptical slice, all chains at once), "slice", "nuts", "sgld", "vi", "flow"
            or "grid", or an object of one of their classes in `lowland.samplers`, with its options.
        prior_scale: s, a standard deviation in units of the directions' lengths; a list of them,
            or "tune": the best on `validation`; None: flat, for samplers that take it.
        temperature: T, by which the log-likelihood is divided; a list, or "tune": likewise.
        validation: examples to choose s and T on, never test examples; see `tune_temperature`.
        chains: number of chains. samples: draws of each after warm-up; None: 1,000, and 100 for
            "vi" and "flow", whose draws are independent.
        warmup: transitions of each chain that are discarded; None: 200, NUTS 300, SGLD 1,000.
        thin: keeps one transition in so many. start: (chains, k) or (k,); None: from the prior.
        loader: other data than the surface's.
        checkpoint: a file: a stopped run goes on from it bit by bit, and one with more `samples`
            from where it ended. The search over temperatures has a file beside it, whose name
            ends in `.tuning`.
        progress: True for a bar, or a callable of (done, total).
        options: `batchnorm`, `strategy`, `chunk` and others: how weights are evaluated, see
            `ll.EvalOptions`.

    Raises:
        ConfigError: T or s that are not positive, an unknown sampler, a checkpoint of other
            settings. NonFiniteError: the log density is not finite at the start of a chain.

    >>> import torch
    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> from lowland.geometry import Subspace
    >>> net = nn.Linear(1, 1, bias=False)  # N(0; w, 1) N(w; 0, 1) is a Gaussian of variance 1/2
    >>> data = [(torch.ones(1, 1), torch.zeros(1, 1))]
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), data)
    >>> chain = infer(Subspace(torch.zeros(1), torch.ones(1, 1)), surface, sampler="grid")
    >>> chain.covariance
    tensor([[0.5000]], dtype=torch.float64)
    """
    method = sampler_of(sampler)
    method.require_packages()
    eval_options = surface.options.override(**options)
    fingerprint: dict[str, Any] = {}
    if checkpoint is not None:  # else no pass over the data is needed
        fingerprint = settings(sub, surface, loader=loader, options=eval_options)
    hyperparameters: dict[str, Any] = {"temperature": temperature, "prior_scale": prior_scale}
    for name, value in hyperparameters.items():
        require_numbers_or_tune(name, value)
    about: dict[str, Any] = {}
    if is_search(prior_scale) or is_search(temperature):
        if validation is None:
            raise ConfigError(
                "validation: give examples to choose the temperature or the prior scale on, and "
                "no test examples."
            )
        tuned = tune_temperature(
            sub,
            surface,
            validation,
            temperatures=temperature,
            prior_scales=prior_scale,
            sampler=method,
            chains=chains,
            warmup=warmup,
            seed=seed,
            loader=loader,
            options=eval_options,
            checkpoint=Checkpoint.of(checkpoint).part("tuning"),
            progress=progress,
        )
        flat = tuned.prior_scale == math.inf
        hyperparameters = {
            "temperature": tuned.temperature,
            "prior_scale": None if flat else tuned.prior_scale,
        }
        names = ("temperatures", "prior_scales", "nll", "evaluations", "seconds")
        about["tuning"] = {name: getattr(tuned, name) for name in names}
    density = log_density(
        sub, surface, **hyperparameters, loader=loader, seed=seed, options=eval_options
    )
    job = Job(
        chains=chains,
        samples=method.samples if samples is None else samples,
        warmup=warmup,
        thin=thin,
        start=start,
        seed=seed,
        checkpoint=checkpoint,
        settings=fingerprint,
        progress=progress,
    )
    chain = method.run(density, job)
    chain.about.update(about)
    return chain.within(sub)
