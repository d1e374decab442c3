"""Every numeric argument of the public API: numbers of any kind are taken, nonsense is refused.

A public function with a numeric argument that is not among `CALLS` fails the first test.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lowland as ll
from lowland import checks
from lowland.keywords import collected_keywords

pytestmark = pytest.mark.filterwarnings("ignore")


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, 2)


X, Y = torch.randn(12, 2, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 2
DATA = [(X, Y)]
NORMED = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
DROPPING = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
P = 6
W0, W1, W2 = torch.randn(3, P, generator=torch.Generator().manual_seed(1))


def surface(model: nn.Module | None = None) -> ll.LossSurface:
    return ll.LossSurface(model or _net(), ll.Classification(), DATA)


def sgd() -> torch.optim.SGD:
    return torch.optim.SGD(_net().parameters(), lr=0.1)


def swag() -> ll.SWAG:
    moments = ll.SWAG(ll.ParamLayout(_net()), rank=2)
    for w in (W0, W1, W2):
        moments.update(w)
    return moments


def gaussian() -> ll.Gaussian:
    return ll.Gaussian(W0, torch.ones(P))


def predictive() -> ll.Predictive:
    return ll.predict(surface(), W0)


def chain(**options: Any) -> Any:
    return ll.infer(PLANE, surface(), **{"chains": 2, "samples": 12, "warmup": 20, **options})


def run_sgd(**options: Any) -> Any:
    return ll.sgd(_net(), ll.Classification(), DATA, **{"epochs": 1, **options})


def members(**options: Any) -> Any:
    batches = [ll.Batches((X, Y), batch_size=6, seed=i) for i in range(2)]
    nets = ll.Members([_net(), _net()])
    return ll.sgd_members(nets, ll.Classification(), batches, **{"epochs": 1, **options})


def member_sgd(**options: Any) -> Any:
    nets = ll.Members([_net(), _net()])
    return ll.MemberSGD(nets.parameters(), **{"lr": 0.1, **options})


def trajectory(tmp: Any) -> ll.Trajectory:
    store = ll.Trajectory.create(tmp, ll.ParamLayout(_net()))
    for step, w in enumerate((W0, W1, W2)):
        store.append(w, step=step)
    return store


def post_hoc(tmp: Any) -> ll.PostHocEMA:
    ema = ll.PostHocEMA(tmp, ll.ParamLayout(_net()), interval=1)
    for w in (W0, W1, W2):
        ema.update(w)
    return ema


PLANE = ll.Plane.through(W0, W1, W2)
SIMPLEX = ll.Simplex([W0, W1, W2])
CURVE = ll.Bezier.between(W0, W1)
with warnings.catch_warnings(action="ignore"):  # of so few samples
    CHAIN = chain()
TWO = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
ALIGNED = ll.ParamLayout(TWO).flatten(TWO)
PROBS = torch.full((12, 2), 0.5)
IMAGES = torch.rand(2, 3, 8, 8)

POSTERIORS = {
    "Gaussian": gaussian(),
    "Mixture": ll.Mixture([gaussian(), gaussian()]),
    "Ensemble": ll.Ensemble([W0, W1]),
    "PointMass": ll.PointMass(W0),
    "Uniform": ll.Uniform(SIMPLEX),
    "Pushforward": CHAIN.posterior(),
}

NORMED_POSTERIORS = {
    "Gaussian": ll.Gaussian(torch.ones(10), torch.ones(10)),
    "Mixture": ll.Mixture([ll.Gaussian(torch.ones(10), torch.ones(10))]),
    "Ensemble": ll.Ensemble([torch.ones(10), -torch.ones(10)]),
    "PointMass": ll.PointMass(torch.ones(10)),
    "Uniform": ll.Uniform(ll.Line(torch.ones(10), -torch.ones(10))),
    "Pushforward": ll.Pushforward(ll.Line(torch.ones(10), -torch.ones(10)), torch.rand(3, 1)),
}

#: the public callable, and the same with its other arguments filled in
CALLS: dict[str, tuple[Callable[..., Any], Any]] = {
    "TrainOptions": (ll.TrainOptions, ll.TrainOptions),
    "TrainOptions.override": (
        ll.TrainOptions.override,
        lambda **o: ll.TrainOptions().override(**o),
    ),
    "schedule_named": (
        ll.schedule_named,
        lambda **o: ll.schedule_named("cosine", **{"total": 9, **o}),
    ),
    "EvalOptions": (ll.EvalOptions, ll.EvalOptions),
    "EvalOptions.override": (ll.EvalOptions.override, lambda **o: ll.EvalOptions().override(**o)),
    "EMA": (ll.EMA, lambda **o: ll.EMA(ll.ParamLayout(_net()), **o)),
    "PowerEMA": (ll.PowerEMA, lambda **o: ll.PowerEMA(ll.ParamLayout(_net()), **o)),
    "PostHocEMA": (
        ll.PostHocEMA,
        lambda tmp, widths=0.05, **o: ll.PostHocEMA(
            tmp, ll.ParamLayout(_net()), widths=(widths, 0.1), **o
        ),
    ),
    "post_hoc_ema": (
        ll.post_hoc_ema,
        lambda tmp, **o: ll.post_hoc_ema(post_hoc(tmp), **{"width": 0.1, **o}),
    ),
    "SWAG": (ll.SWAG, lambda **o: ll.SWAG(ll.ParamLayout(_net()), **o)),
    "SWAG.posterior": (ll.SWAG.posterior, lambda **o: swag().posterior(**o)),
    "FrequentDirections": (
        ll.FrequentDirections,
        lambda **o: ll.FrequentDirections(ll.ParamLayout(_net()), **o),
    ),
    "soup": (ll.soup, lambda **o: ll.soup([W0, W1], surface(), DATA, **o)),
    "tune_average": (
        ll.tune_average,
        lambda **o: ll.tune_average(
            surface(),
            torch.stack([W0, W1, W2]),
            DATA,
            **{"steps": 1, "swag_rank": 2, "scales": 1, "samples": 2, **o},
        ),
    ),
    "diversity": (ll.diversity, lambda **o: ll.diversity([W0, W1], surface(), **o)),
    "linearization": (
        ll.linearization,
        lambda **o: ll.linearization(surface(), [W0, W1], **o),
    ),
    "LossSurface": (
        ll.LossSurface,
        lambda **o: ll.LossSurface(NORMED, ll.Classification(), DATA, **o)(torch.ones(10)),
    ),
    "LossSurface.replayable": (
        ll.LossSurface.replayable,
        lambda **o: surface().replayable(DATA, **o),
    ),
    "Batches": (ll.Batches, lambda **o: ll.Batches((X, Y), **{"batch_size": 4, **o})),
    "Batches.epoch": (
        ll.Batches.epoch,
        lambda **o: list(ll.Batches((X, Y), batch_size=4).epoch(**{"number": 0, **o})),
    ),
    "Batches.order": (ll.Batches.order, lambda **o: ll.Batches((X, Y), batch_size=4).order(**o)),
    "Classification": (ll.Classification, ll.Classification),
    "LanguageModeling": (ll.LanguageModeling, ll.LanguageModeling),
    "Regression": (ll.Regression, ll.Regression),
    "GaussianHead": (ll.GaussianHead, lambda **o: ll.GaussianHead(_net(), **o)),
    "Bezier.between": (ll.Bezier.between, lambda **o: ll.Bezier.between(W0, W1, **o)),
    "PolyChain.between": (ll.PolyChain.between, lambda **o: ll.PolyChain.between(W0, W1, **o)),
    "Line.between": (ll.Line.between, lambda **o: ll.Line.between(W0, W1, **o)),
    "Plane.box": (ll.Plane.box, lambda **o: PLANE.box(**o)),
    "Curve.sample_coords": (ll.Curve.sample_coords, lambda **o: CURVE.sample_coords(**o)),
    "Plane.sample_coords": (ll.Plane.sample_coords, lambda **o: PLANE.sample_coords(**o)),
    "Simplex.sample_coords": (ll.Simplex.sample_coords, lambda **o: SIMPLEX.sample_coords(**o)),
    "Subspace.sample_coords": (
        ll.Subspace.sample_coords,
        lambda **o: ll.Subspace.random(W0, rank=2).sample_coords(**o),
    ),
    "Simplex.grow": (ll.Simplex.grow, lambda **o: SIMPLEX.grow(**o)),
    "Simplex.contains": (ll.Simplex.contains, lambda **o: SIMPLEX.contains(W0, **o)),
    "Subspace.random": (ll.Subspace.random, lambda **o: ll.Subspace.random(W0, **o)),
    "Subspace.hessian": (
        ll.Subspace.hessian,
        lambda **o: ll.Subspace.hessian(surface(), W0, **{"rank": 1, **o}),
    ),
    "Gaussian": (ll.Gaussian, lambda **o: ll.Gaussian(W0, torch.ones(P), **o)),
    "Gaussian.with_scale": (ll.Gaussian.with_scale, lambda **o: gaussian().with_scale(**o)),
    "Mixture.with_scale": (
        ll.Mixture.with_scale,
        lambda **o: ll.Mixture([gaussian()]).with_scale(**o),
    ),
    "Mixture": (ll.Mixture, lambda **o: ll.Mixture([gaussian()], **o)),
    "predict": (ll.predict, lambda **o: ll.predict(surface(), gaussian(), **{"samples": 2, **o})),
    "mc_dropout": (
        ll.mc_dropout,
        lambda **o: ll.mc_dropout(surface(DROPPING), W0, **{"samples": 2, **o}),
    ),
    "LastLayerLaplace.predict": (ll.LastLayerLaplace.predict, None),  # needs another package
    "LogLikelihood": (
        ll.LogLikelihood,
        lambda **o: ll.LogLikelihood(surface(), **o).along(PLANE, torch.zeros(3, 2)),
    ),
    "functions": (
        ll.functions,
        lambda **o: ll.functions(surface(), gaussian(), X, **{"samples": 2, **o}),
    ),
    "reliability": (ll.reliability, lambda **o: ll.reliability(PROBS, Y, **o)),
    "corrupt": (
        ll.corrupt,
        lambda **o: ll.corrupt(IMAGES, "gaussian_noise", **{"strength": 1, **o}),
    ),
    "noise_like": (ll.noise_like, lambda **o: ll.noise_like(X, **o)),
    "temper": (ll.temper, lambda **o: ll.temper(predictive(), **o)),
    "tune_scale": (
        ll.tune_scale,
        lambda **o: ll.tune_scale(surface(), gaussian(), DATA, **{"samples": 2, **o}),
    ),
    "sharpness": (
        ll.sharpness,
        lambda **o: ll.sharpness(surface(), W0, kind="average", **{"radius": 0.1, **o}),
    ),
    "spectrum": (
        ll.spectrum,
        lambda **o: ll.spectrum(surface(), W0, **{"top": 1, "probes": 1, "steps": 2, **o}),
    ),
    "widths": (ll.widths, lambda **o: ll.widths(surface(), W0, **{"directions": 2, **o})),
    "align": (ll.align, lambda **o: ll.align(TWO, ALIGNED, ALIGNED.flip(0), **o)),
    "barrier": (ll.barrier, lambda **o: ll.barrier(surface(), W0, W1, **{"points": 3, **o})),
    "directions": (ll.directions, lambda **o: ll.directions(surface(), W0, **o)),
    "path": (ll.path, lambda **o: ll.path(CURVE, surface(), **{"points": 3, **o})),
    "scan": (ll.scan, lambda **o: ll.scan(PLANE, surface(), **{"resolution": 3, **o})),
    "ternary": (ll.ternary, lambda **o: ll.ternary(SIMPLEX, surface(), **{"resolution": 3, **o})),
    "similarity": (ll.similarity, lambda **o: ll.similarity(surface(), [W0, W1], **o)),
    "forecast": (ll.forecast, lambda **o: ll.forecast(PLANE, surface(), resolution=3, **o)),
    "evidence": (
        ll.evidence,
        lambda **o: ll.evidence(
            PLANE,
            surface(),
            **{"method": "tempering", "moves": 1, "particles": 4, "repeats": 2, **o},
        ),
    ),
    "infer": (ll.infer, chain),
    "posterior_plane": (
        ll.posterior_plane,
        lambda **o: ll.posterior_plane(PLANE, surface(), CHAIN, **{"resolution": 3, **o}),
    ),
    "tune_temperature": (
        ll.tune_temperature,
        lambda **o: ll.tune_temperature(
            PLANE,
            surface(),
            DATA,
            **{
                "temperatures": [1.0, 2.0],
                "chains": 2,
                "samples": 2,
                "draws": 4,
                "warmup": 20,
                **o,
            },
        ),
    ),
    "fit": (ll.fit, lambda **o: ll.fit(CURVE, surface(), **{"epochs": 1, **o})),
    "sgd": (ll.sgd, run_sgd),
    "sgd_members": (ll.sgd_members, members),
    "SAM": (ll.SAM, lambda **o: ll.SAM(sgd(), **o)),
    "MemberSGD": (ll.MemberSGD, member_sgd),
    "Members.load_": (
        ll.Members.load_,
        lambda **o: ll.Members([_net(), _net()]).load_(_net(), **o),
    ),
    "Members.point": (ll.Members.point, lambda **o: ll.Members([_net(), _net()]).point(**o)),
    "spro": (
        ll.spro,
        lambda **o: ll.spro(surface(), W0, **{"vertices": 2, "epochs": 1, **o}),
    ),
    "connect_modes": (
        ll.connect_modes,
        lambda **o: ll.connect_modes(surface(), [W0, W1], **{"connectors": 1, "epochs": 1, **o}),
    ),
    "CyclicalSchedule": (
        ll.CyclicalSchedule,
        lambda **o: ll.CyclicalSchedule(sgd(), **{"cycle": 4, **o}),
    ),
    "CyclicalCosineSchedule": (
        ll.CyclicalCosineSchedule,
        lambda **o: ll.CyclicalCosineSchedule(sgd(), **{"cycle": 4, **o}),
    ),
    "LangevinSGD": (
        ll.LangevinSGD,
        lambda **o: ll.LangevinSGD(_net().parameters(), **{"num_examples": 12, **o}),
    ),
    "DecaySchedule": (ll.DecaySchedule, lambda **o: ll.DecaySchedule(sgd(), **{"total": 4, **o})),
    "SWASchedule": (
        ll.SWASchedule,
        lambda **o: ll.SWASchedule(sgd(), **{"total": 4, "swa_lr": 0.1, **o}),
    ),
    "Every": (ll.Every, lambda **o: ll.Every(**{"interval": 2, "total": 4, **o})),
    "Every.count": (ll.Every.count, lambda **o: ll.Every(2).count(**o)),
    "MidCycle": (ll.MidCycle, lambda **o: ll.MidCycle(**{"cycle": 4, **o})),
    "EndOfCycle": (ll.EndOfCycle, lambda **o: ll.EndOfCycle(**{"cycle": 20, **o})),
    "EndOfCycle.count": (ll.EndOfCycle.count, lambda **o: ll.EndOfCycle(4).count(**o)),
    "Collector.check": (
        ll.Collector.check,
        lambda **o: ll.Collector(swag(), when=ll.Every(1)).check(**o),
    ),
    "MidCycle.count": (ll.MidCycle.count, lambda **o: ll.MidCycle(4).count(**o)),
    "iterate_metrics": (
        ll.iterate_metrics,
        lambda **o: ll.iterate_metrics(surface(), torch.stack([W0, W1]), **o),
    ),
    "cycle_series": (
        ll.cycle_series,
        lambda tmp, **o: ll.cycle_series(
            surface(),
            trajectory(tmp),
            schedule=ll.CyclicalSchedule(sgd(), cycle=4),
            members=ll.MidCycle(4),
            **o,
        ),
    ),
    "Trajectory.append": (
        ll.Trajectory.append,
        lambda tmp, **o: trajectory(tmp).append(W0, **o),
    ),
    "Trajectory.swag": (ll.Trajectory.swag, lambda tmp, **o: trajectory(tmp).swag(**o)),
    "Trajectory.rewind": (ll.Trajectory.rewind, lambda tmp, **o: trajectory(tmp).rewind(**o)),
    **{
        f"{name}.{method}": (getattr(type(post), method), getattr(post, method))
        for name, post in POSTERIORS.items()
        for method in ("draw", "sample", "points")
    },
    **{
        f"{name}.freeze": (
            type(post).freeze,
            lambda post=post, **o: post.freeze(surface(NORMED), **o),
        )
        for name, post in NORMED_POSTERIORS.items()
    },
}
#: called by library code alone, with its own numbers; and a record
INNER = re.compile(
    r"\.(point|lrs|explicit_plan|picks|index|coords|anchor|anchor_buffers)$|^Forecast$"
)
#: a value that each argument takes, where it is not the default or 2
GOOD: dict[str, Any] = {
    "EMA decay": 0.5,
    "PowerEMA width": 0.1,
    "PostHocEMA widths": 0.05,
    "post_hoc_ema width": 0.1,
    "tune_average decays": 0.5,
    "linearization scales": 0.5,
    "LossSurface bn_rows": 12,
    "Plane.box margin": 0.5,
    "Subspace.hessian rank": 1,
    "Line.between bends": 0,
    "Every start": 0.5,
    "MidCycle cycle": 4,
    "CyclicalSchedule cycle": 4,
    "CyclicalCosineSchedule low": 0.01,
    "EndOfCycle cycle": 20,
    "EndOfCycle explore": 0.5,
    "LangevinSGD explore": 0.5,
    "LangevinSGD momentum": 0.5,
    "CyclicalSchedule high": 0.5,
    "CyclicalSchedule low": 0.01,
    "SWASchedule start": 0.5,
    "MemberSGD momentum": 0.5,
    "Members.load_ m": 1,
    "Members.point m": 1,
    "Trajectory.append step": 5,
    "Trajectory.rewind step": 2,
    "infer warmup": 20,
    "infer samples": 12,
    "tune_temperature warmup": 20,
    "barrier points": 3,
    "ternary resolution": 3,
    "scan resolution": 3,
    "posterior_plane resolution": 3,
    "evidence particles": 4,
    "Batches workers": 0,
    "spro vertices": 2,
    "Classification ignore_index": -100,
    "LanguageModeling ignore_index": -100,
    "Batches.epoch start": 1,
    "align restarts": 1,
    "scan margin": 0.5,
    "scan refine": 0.1,
    "fit log_volume": 0,
    "connect_modes connectors": 1,
}
#: values that are wrong elsewhere and right here
MEANT: dict[str, Any] = {
    "Classification ignore_index": -1,
    "LanguageModeling ignore_index": -1,
    "Classification class_dim": -1,
    "Regression target_dim": -1,
    "GaussianHead target_dim": -1,
    "Regression target_mean": -1,
    "Trajectory.rewind step": -1,
    "scan refine": True,
    "spro rise": math.inf,
    "connect_modes rise": math.inf,
}
#: of what is no number, such as tensors, or several of them
SKIPPED = re.compile(r"Tensor \||Callable|Mapping|Any|Metrics|Rank|Sequence\[(int|Sequence)")


def numeric(function: Callable[..., Any]) -> Iterator[tuple[str, str, bool]]:
    """(argument, annotation, whether None is meant) of each argument that takes a number, those
    that `**options` collects among them."""
    annotations = {n: str(p.annotation) for n, p in inspect.signature(function).parameters.items()}
    function_options = function.__init__ if inspect.isclass(function) else function
    annotations |= {
        n: str(kind) for n, kind in (collected_keywords(function_options) or {}).items()
    }
    for name, annotation in annotations.items():
        if re.search(r"\b(int|float)\b", annotation) and not SKIPPED.search(annotation):
            yield name, annotation, "None" in annotation


CASES = [
    (label, name, annotation, none)
    for label, (function, call) in CALLS.items()
    if call is not None
    for name, annotation, none in numeric(function)
]
IDS = [f"{label} {name}" for label, name, *_ in CASES]


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function, and every class and its public methods."""
    for name in ll.__all__:
        what = getattr(ll, name)
        if not inspect.isclass(what):
            yield name, what
        elif not issubclass(what, Exception | tuple) and not inspect.isabstract(what):
            yield name, what
            for key, method in inspect.getmembers(what, callable):
                from_lowland = str(getattr(method, "__module__", "")).startswith("lowland")
                if from_lowland and not key.startswith("_"):
                    yield f"{name}.{key}", method


def test_every_public_argument_that_is_a_number_is_among_the_cases() -> None:
    covered_names = {getattr(function, "__func__", function) for function, _ in CALLS.values()}
    lacking = {
        label
        for label, function in public()
        if any(True for _ in numeric(function))
        and getattr(function, "__func__", function) not in covered_names
        and not INNER.search(label)
    }
    assert lacking == set()


def value_of(label: str, name: str) -> Any:
    return GOOD.get(f"{label} {name}", 1 if name == "threads" else 2)


def run(label: str, name: str, value: Any, folder: Any) -> Any:
    function, call = CALLS[label]
    if "tmp" in inspect.signature(call).parameters:
        call = partial(call, folder / "store")
    parameters = inspect.signature(function).parameters
    required = {
        other: value_of(label, other)
        for other, *_ in numeric(function)
        if other in parameters and parameters[other].default is inspect.Parameter.empty
    }
    return call(**{**required, name: value})


def nonsense(label: str, name: str, annotation: str, none: bool) -> Iterator[Any]:
    wrong: list[Any] = [-1, math.nan, math.inf, "3", True]
    if "float" not in annotation:
        wrong.append(1.5)
    if "Sequence" not in annotation and "Tensor" not in annotation:
        wrong.append(torch.tensor([1, 2]))
    if not none:
        wrong.append(None)
    accepted = MEANT.get(f"{label} {name}")
    return (value for value in wrong if accepted is None or value is not accepted)


@pytest.mark.parametrize(("label", "name", "annotation", "none"), CASES, ids=IDS)
def test_wrong_values_are_an_error(
    label: str, name: str, annotation: str, none: bool, tmp_path: Path
) -> None:
    for i, value in enumerate(nonsense(label, name, annotation, none)):
        with pytest.raises(ll.LowlandError, match=rf"{name}\b"):
            run(label, name, value, tmp_path / str(i))


class CheckedOnly:
    """A number that only `lowland.checks` can read: all other uses of it are errors."""

    ndim = 0  # as that of a tensor or of a NumPy scalar

    def __init__(self, value: float) -> None:
        self._value = value

    def item(self) -> float:
        return self._value


class EndAtCheck(BaseException):
    """Ends a call at the check of an argument."""


def end_at_check(check: Callable[..., Any], kind: Any, value: Any) -> Callable[..., Any]:
    """The same check, which ends the call where it takes one kind of a number as it does the plain
    value."""

    def call(name: str, argument: Any, **bounds: Any) -> Any:
        result = check(name, argument, **bounds)
        if argument is kind:
            expected = check(name, value, **bounds)
            assert (result, type(result)) == (expected, type(expected))
            raise EndAtCheck
        return result

    return call


@pytest.mark.parametrize(("label", "name", "annotation", "none"), CASES, ids=IDS)
def test_numbers_of_any_kind_are_accepted(
    label: str,
    name: str,
    annotation: str,
    none: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A whole run uses the result of the check alone, which is the same for each kind."""
    value = value_of(label, name)
    run(label, name, CheckedOnly(value), tmp_path / "run")
    kinds = [value, np.float64(value), torch.from_numpy(np.array(value))]
    if value == int(value):
        kinds += [np.int64(value), float(value)]
    for i, kind in enumerate(kinds):
        with monkeypatch.context() as patch:
            for check in (checks.whole, checks.number):
                patch.setattr(checks, check.__name__, end_at_check(check, kind, value))
            with pytest.raises(EndAtCheck):
                run(label, name, kind, tmp_path / str(i))


@pytest.mark.parametrize(("label", "name", "annotation", "none"), CASES, ids=IDS)
def test_zero_is_accepted_or_an_error(
    label: str, name: str, annotation: str, none: bool, tmp_path: Path
) -> None:
    with contextlib.suppress(ll.LowlandError):
        run(label, name, 0, tmp_path)
