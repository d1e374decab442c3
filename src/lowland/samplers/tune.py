"""The temperature and the prior scale with the best predictions on validation data."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Unpack

import torch
from torch import Tensor

from lowland import checks
from lowland.artifacts import Checkpoint
from lowland.core import EvalOptions, LossSurface, Regression
from lowland.core.data import ReplayableLoader
from lowland.core.options import EvalKeywords
from lowland.errors import ConfigError, DataError, NonFiniteError
from lowland.evaluate import predict
from lowland.files import PathLike
from lowland.geometry import Shape
from lowland.posteriors import Posterior, Pushforward
from lowland.progress import Progress, reporting
from lowland.records import Chain, TemperingResult
from lowland.samplers.base import Sampler
from lowland.samplers.density import Density
from lowland.samplers.job import Job, Run, SavedRun
from lowland.samplers.registry import sampler_of
from lowland.samplers.subspace_density import log_density, settings


class SavedSearch(SavedRun):
    """The pairs of temperature and prior scale so far, in a checkpoint."""

    rows: list[dict[str, float]]
    start: Tensor | None
    count: int


TEMPERATURES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
PRIOR_SCALES = (0.3, 1.0, 3.0)
_TUNE = "tune"
_GRID_DRAWS = 100  # of the many points of a grid most have no weight


def tune_temperature(
    sub: Shape,
    surface: LossSurface,
    validation: Iterable[Any],
    *,
    temperatures: float | Sequence[float] | str = _TUNE,
    prior_scales: float | Sequence[float] | str | None = 1.0,
    sampler: str | Sampler = "ess",
    chains: int = 16,
    samples: int = 10,
    warmup: int | None = None,
    draws: int | None = None,
    seed: int = 0,
    loader: Iterable[Any] | None = None,
    checkpoint: Checkpoint | PathLike | None = None,
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> TemperingResult:
    r"""NLL of the model average on validation examples, for each temperature and prior scale.

    For a regression it is the NLL of the Gaussian with the average's mean and variance.

    The posterior of a few coordinates given n examples is as narrow as \(1/\sqrt n\), as if the
    subspace contained the truth; a temperature above 1 widens it (Izmailov et al. 2019). Chains run
    from the highest temperature down, each from where the last one ended, with the same seed.

    The cost is at most (temperatures) x (prior scales) x (chains) x (warm-up + samples)
    transitions; the record has the number of evaluations.

    Args:
        sub, surface: as for `ll.infer`. validation: examples, never test examples.
        temperatures: candidates; "tune": 0.1 to 10,000. prior_scales: likewise; "tune": 0.3, 1, 3.
        samples: of each chain. warmup: transitions before them at the first temperature, and a
            quarter of that at the others; None: the sampler's default.
        draws: weights in each model average. None: all draws, which costs little beside sampling
            them, and adds `nll_se`, the standard error of the NLL over chains; of a grid 100.
        checkpoint: a file: a stopped run goes on from it after the last pair, and a finished one
            returns its result.
        options: as for `ll.infer`; `strategy`, `chunk` and `threads` hold for predictions, too.

    Raises:
        ConfigError: no candidates, or a checkpoint of other settings. DataError: validation
            examples without targets.
    """
    candidates = sorted(_candidates("temperatures", temperatures, TEMPERATURES), reverse=True)
    scales: list[float | None] = [None]
    if prior_scales is not None:
        scales = [*_candidates("prior_scales", prior_scales, PRIOR_SCALES)]
    eval_options = surface.options.override(**options)
    search = _Search(
        sub,
        surface,
        sampler_of(sampler),
        surface.replayable(validation).cached(),
        chains=checks.whole("chains", chains, least=1),
        samples=checks.whole("samples", samples, least=1),
        warmup=None if warmup is None else checks.whole("warmup", warmup, least=0),
        draws=None if draws is None else checks.whole("draws", draws, least=1),
        seed=checks.seed(seed),
        options=eval_options,
    )
    checkpoint = Checkpoint.of(checkpoint)
    same = search.settings()
    if checkpoint.path is not None:  # else no pass over the data is needed
        same |= {"temperatures": candidates, "prior_scales": scales}
        same |= settings(sub, surface, loader=loader, options=eval_options)
    # the data are read and planned once, for all pairs
    likelihood = log_density(sub, surface, loader=loader, seed=seed, options=eval_options)
    run = Run(likelihood, Job(checkpoint=checkpoint), same, form=SavedSearch)
    state = run.saved or {"rows": [], "start": None, "count": 0}
    rows: list[dict[str, float]] = state["rows"]
    pairs = list(product(scales, candidates))
    with reporting(progress, "temperatures") as report:
        report(len(rows), len(pairs))
        for scale, temperature in pairs[len(rows) :]:
            start = None if temperature == candidates[0] else state["start"]
            density = likelihood.at(prior_scale=scale, temperature=temperature)
            chain = search.sample(density, start)
            if len(chain.coords) == search.chains:
                state["start"] = chain.coords[:, -1]
            likelihood.evaluations += chain.evaluations
            state["count"] = search.draws_of(chain)
            pair = {"temperature": temperature, "prior_scale": math.inf if scale is None else scale}
            rows.append(pair | search.metrics(chain))
            run.save(state)
            report(len(rows), len(pairs))
    return _result(run, state, "rmse" if isinstance(surface.task, Regression) else "error")


@dataclass(frozen=True)
class _Search:
    """What is equal for all pairs: how chains are run, and how their predictions are scored."""

    sub: Shape
    surface: LossSurface
    sampler: Sampler
    validation: ReplayableLoader
    chains: int
    samples: int
    warmup: int | None
    draws: int | None
    seed: int
    options: EvalOptions

    def settings(self) -> dict[str, Any]:
        """What must be equal for a stopped search to go on."""
        return {
            "validation": f"{self.validation.num_examples} {self.validation.checksum}",
            "chains": self.chains,
            "samples": self.samples,
            "warmup": self.warmup,
            "draws": self.draws,
            "seed": self.seed,
        } | self.sampler.settings()

    def sample(self, density: Density, start: Tensor | None) -> Chain:
        """Chains from `start`, the last points at another temperature, or from the prior."""
        warmup = getattr(self.sampler, "warmup", 0) if self.warmup is None else self.warmup
        if start is not None:  # the chains are near their new stationary state already
            warmup = min(max(warmup // 4, 10), warmup)
        job = Job(
            chains=self.chains, samples=self.samples, warmup=warmup, start=start, seed=self.seed
        )
        with warnings.catch_warnings():
            # the few draws that a comparison needs never agree as long chains do
            warnings.filterwarnings("ignore", "the chains disagree")
            return self.sampler.run(density, job)

    def draws_of(self, chain: Chain) -> int:
        """The number of draws in a model average."""
        return self.draws or (_GRID_DRAWS if chain.log_weights is not None else len(chain.draws))

    def metrics(self, chain: Chain) -> dict[str, float]:
        """The metrics of the model average of all chains, with `nll_se` from those of each."""
        metrics = self._metrics(chain.within(self.sub).posterior(), self.draws_of(chain))
        if self.draws is None and chain.log_weights is None:
            each = [self._metrics(Pushforward(self.sub, z), self.samples) for z in chain.coords]
            metrics["nll_se"] = _standard_error([one["nll"] for one in each])
        return metrics

    def _metrics(self, posterior: Posterior, draws: int) -> dict[str, float]:
        try:
            predictive = predict(
                self.surface,
                posterior,
                self.validation,
                samples=draws,
                seed=self.seed,
                keep="none",
                options=replace(self.options, count=None),  # `count` is for training examples
            )
        except NonFiniteError:  # the posterior is so wide that outputs overflow
            return {"nll": math.inf}
        if predictive.nll_by_samples is None:
            raise DataError(
                "validation: give examples with targets; temperatures are chosen by their NLL."
            )
        metrics = predictive.metrics()
        if "accuracy" in metrics:
            metrics["error"] = 1 - metrics["accuracy"]
        # a regression's average is scored by the Gaussian of its moments, as in the paper
        return metrics | {"nll": metrics.get("nll_gaussian", metrics["nll"])}


def _result(run: Run, state: dict[str, Any], second: str) -> TemperingResult:
    """The record of a finished search; `second`: the metric beside the NLL."""
    rows = state["rows"]

    def column(name: str) -> Tensor:
        return torch.tensor([row.get(name, math.nan) for row in rows], dtype=torch.float64)

    nll, errors = column("nll"), column("nll_se")
    if not bool(nll.isfinite().any()):
        raise NonFiniteError(
            "no temperature gives a finite NLL on the validation examples; look at the subspace's "
            "centre, or try higher temperatures and smaller prior scales."
        )
    return TemperingResult(
        temperatures=column("temperature"),
        prior_scales=column("prior_scale"),
        nll=nll,
        second_metric=column(second),
        second_metric_name=second,
        best=int(torch.where(nll.isfinite(), nll, math.inf).argmin()),
        samples=state["count"],
        evaluations=run.density.evaluations,
        nll_se=errors if bool(errors.isfinite().any()) else None,
        seconds=run.seconds(),
    )


def _standard_error(values: Sequence[float]) -> float:
    """The standard error of the mean over chains; NaN for one chain, or values not finite."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.nan
    return statistics.stdev(values) / math.sqrt(len(values))


def _candidates(name: str, value: Any, defaults: Sequence[float]) -> list[float]:
    require_numbers_or_tune(name, value)
    # a flat prior is no candidate: beside proper ones T and s would be hard to tell apart
    numbers = checks.numbers(name, defaults if isinstance(value, str) else value, above=0)
    if not numbers:
        raise ConfigError(f"{name}: expected at least one number.")
    return numbers


def require_numbers_or_tune(name: str, value: Any) -> None:
    """Raises `ConfigError` for a string other than "tune"."""
    if isinstance(value, str) and value != _TUNE:
        raise ConfigError(f"{name}: expected numbers or 'tune', got {value!r}.")


def is_search(value: Any) -> bool:
    """Whether a value is to be tuned: "tune", or numbers in a list or an array."""
    return isinstance(value, str | Sequence) or getattr(value, "ndim", 0) > 0
