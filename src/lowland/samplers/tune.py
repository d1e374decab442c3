"""The temperature and the prior scale with the best predictions on validation data."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from lowland import checks
from lowland.artifacts import Checkpoint
from lowland.core import EvalOptions, LossSurface, Regression
from lowland.core.options import EvalKeywords
from lowland.errors import ConfigError, DataError, NonFiniteError
from lowland.evaluate import predict
from lowland.files import PathLike
from lowland.geometry import Shape
from lowland.posteriors import Pushforward
from lowland.progress import Progress, reporting
from lowland.records import TemperingResult
from lowland.samplers.base import Job, Sampler
from lowland.samplers.registry import sampler_of
from lowland.samplers.subspace import log_density, settings

KIND = "temperatures 2"


class Saved(TypedDict):
    """The pairs of temperature and prior scale that were tried so far, in a file."""

    rows: list[dict[str, float]]
    start: Tensor | None
    evaluations: int
    count: int
    seconds: float
    memory: Any


TEMPERATURES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
PRIOR_SCALES = (0.3, 1.0, 3.0)
_TEMPER = "tune"
_OF_GRID = 100  # draws: its points are many, and most have no weight


def tune_temperature(
    sub: Shape,
    surface: LossSurface,
    validation: Iterable[Any],
    *,
    temperatures: float | Sequence[float] | str = _TEMPER,
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
    r"""NLL of the model average on validation rows, for each temperature and prior scale.

    Of a regression it is that of the Gaussian with the average's mean and variance.

    The posterior of a few coordinates given n rows is as narrow as \(1/\sqrt n\), as if the
    subspace held the truth; a temperature above 1 widens it (Izmailov et al. 2019). Chains are run
    from the highest temperature down, each from where the last ended, with the same seed.

    It costs at most (temperatures) x (prior scales) x (chains) x (warm-up + samples) transitions;
    the record says how many evaluations they were.

    Args:
        sub, surface: as `ll.infer` takes them. validation: rows, never test rows.
        temperatures: to try; "tune": 0.1 to 10,000. prior_scales: likewise; "tune": 0.3, 1, 3.
        samples: of each chain. warmup: transitions before them at the first temperature, and a
            quarter of that at the others; None: what suits the sampler.
        draws: weights in each model average; None: all that were sampled, which costs little beside
            sampling them, and gives `nll_se`, how far other draws would be off: the standard error
            of the mean over chains, by chain. Of a grid's points 100.
        checkpoint: a file: a stopped run goes on from it after the pairs that were tried, and one
            that ended gives what it found.
        options: as for `ll.infer`; `strategy`, `chunk` and `threads` hold for predictions, too.

    Raises:
        ConfigError: nothing to try, or a checkpoint of other settings. DataError: validation rows
            without targets.
    """
    hot = sorted(_tried(temperatures, TEMPERATURES, "temperatures"), reverse=True)
    scales = [None] if prior_scales is None else _tried(prior_scales, PRIOR_SCALES, "prior_scales")
    method = sampler_of(sampler)
    chains = checks.whole("chains", chains, least=1)
    samples = checks.whole("samples", samples, least=1)
    draws = None if draws is None else checks.whole("draws", draws, least=1)
    how = surface.options.override(**options)
    held = surface.replayable(validation).cached()
    checkpoint = Checkpoint.of(checkpoint)
    same: dict[str, Any] = {}
    if checkpoint.path is not None:  # else no pass over the rows is needed
        same = {
            "temperatures": hot,
            "prior_scales": scales,
            "validation": f"{held.num_examples} {held.checksum}",
            "chains": chains,
            "samples": samples,
            "warmup": warmup,
            "draws": draws,
            "seed": seed,
        }
        same |= method.settings() | settings(sub, surface, loader=loader, options=how)
    # read and planned once, for all of them
    likelihood = log_density(sub, surface, loader=loader, seed=seed, options=how)
    state = checkpoint.load(kind=KIND, same=same, form=Saved)
    if state is None:
        state = {"rows": [], "start": None, "evaluations": 0, "count": 0, "seconds": 0.0}
    else:
        with checkpoint.restoring(KIND):
            likelihood.memory.load_state_dict(state["memory"])
    rows: list[dict[str, float]] = state["rows"]
    pairs = list(product(scales, hot))
    with reporting(progress, "temperatures") as report:
        report(len(rows), len(pairs))
        for scale, temperature in pairs[len(rows) :]:
            clock = time.perf_counter()
            start = None if temperature == hot[0] else state["start"]
            density = likelihood.at(prior_scale=scale, temperature=temperature)
            row = {
                "temperature": temperature,
                "prior_scale": math.inf if scale is None else scale,
            }
            first = getattr(method, "warmup", 0) if warmup is None else warmup
            job = Job(
                chains=chains,
                samples=samples,
                # from where the last temperature ended it is not far
                warmup=first if start is None else min(max(first // 4, 10), first),
                start=start,
                seed=seed,
            )
            with warnings.catch_warnings():
                # a few draws of each are enough to compare by, and never agree as chains do
                warnings.filterwarnings("ignore", "the chains disagree")
                chain = method.run(density, job)
            count = draws or (_OF_GRID if chain.log_weights is not None else len(chain.draws))
            if len(chain.coords) == chains:
                state["start"] = chain.coords[:, -1]
            state["evaluations"] += chain.evaluations
            state["count"] = count
            found = _figures(surface, chain.within(sub).posterior(), held, count, seed, how)
            if draws is None and chain.log_weights is None:
                each = (
                    _figures(surface, Pushforward(sub, z), held, samples, seed, how)
                    for z in chain.coords
                )
                found["nll_se"] = _error([one["nll"] for one in each])
            rows.append(row | found)
            state["seconds"] += time.perf_counter() - clock
            if checkpoint.path is not None:
                now = state | {"memory": likelihood.memory.state_dict()}
                checkpoint.save(now, kind=KIND, same=same)
            report(len(rows), len(pairs))
    nll = [row["nll"] for row in rows]
    if not any(map(math.isfinite, nll)):
        raise NonFiniteError(
            "no temperature gives a finite NLL on the validation rows; look at the subspace's "
            "centre, or try higher temperatures and smaller prior scales."
        )
    errors = torch.tensor([row.get("nll_se", math.nan) for row in rows], dtype=torch.float64)
    second = "rmse" if isinstance(surface.task, Regression) else "error"
    return TemperingResult(
        temperatures=torch.tensor([row["temperature"] for row in rows], dtype=torch.float64),
        prior_scales=torch.tensor([row["prior_scale"] for row in rows], dtype=torch.float64),
        nll=torch.tensor(nll, dtype=torch.float64),
        second_metric=torch.tensor(
            [row.get(second, math.nan) for row in rows], dtype=torch.float64
        ),
        second_metric_name=second,
        best=min(range(len(nll)), key=lambda i: nll[i] if math.isfinite(nll[i]) else math.inf),
        samples=state["count"],
        evaluations=state["evaluations"],
        nll_se=errors if bool(errors.isfinite().any()) else None,
        seconds=state["seconds"],
    )


def _figures(
    surface: LossSurface, post: Any, rows: Any, draws: int, seed: int, options: EvalOptions
) -> dict[str, float]:
    try:
        pred = predict(
            surface,
            post,
            rows,
            samples=draws,
            seed=seed,
            keep="none",
            options=replace(options, count=None),  # that is of the training examples
        )
    except NonFiniteError:  # too wide for the network to survive
        return {"nll": math.inf}
    if pred.nll_by_samples is None:
        raise DataError("validation: give rows with targets; temperatures are chosen by their NLL.")
    figures = pred.metrics()
    if "accuracy" in figures:
        figures["error"] = 1 - figures["accuracy"]
    # a regression's average is judged by the Gaussian of its moments, as the paper does
    return figures | {"nll": figures.get("nll_gaussian", figures["nll"])}


def _error(each: Sequence[float]) -> float:
    """The standard error of the mean of as many chains; NaN where one alone, or not finite."""
    if len(each) < 2 or not all(map(math.isfinite, each)):
        return math.nan
    return statistics.stdev(each) / math.sqrt(len(each))


def _tried(asked: Any, usual: Sequence[float], what: str) -> list[float]:
    require_known(what, asked)
    found: Any = usual if isinstance(asked, str) else asked
    # a flat prior stands alone: beside proper ones it would make T and s hard to tell apart
    values = checks.numbers(what, found, above=0)
    if not values:
        raise ConfigError(f"{what}: expected at least one number to try.")
    return values


def require_known(what: str, asked: Any) -> None:
    """Of words there is one."""
    if isinstance(asked, str) and asked != _TEMPER:
        raise ConfigError(f"{what}: expected numbers or 'tune', got {asked!r}.")


def several(asked: Any) -> bool:
    """Whether it is to be chosen: of numbers in a list or an array, or "tune"."""
    return isinstance(asked, str | Sequence) or getattr(asked, "ndim", 0) > 0
