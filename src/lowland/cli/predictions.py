"""What the methods of one run predict: for its test rows, corrupted ones, and strange ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowland.cli.load_runs import FinishedRun
from lowland.cli.show import Bars
from lowland.cli.strange import Asked, Strange
from lowland.core import Classification, Point, Regression, Task
from lowland.core.data import example_hashes
from lowland.errors import ConfigError, DataError, LowlandError, StoreError
from lowland.evaluate import pool, predict
from lowland.evaluate.mixture_components import components
from lowland.evaluate.slicing import slice_examples
from lowland.posteriors import PointMass, Posterior
from lowland.progress import Progress
from lowland.records import Predictive
from lowland.runs.methods import Method
from lowland.runs.results import Results
from lowland.runs.run import Run
from lowland.runs.setup import Setup
from lowland.uncertainty import LastLayerLaplace, mc_dropout, temper
from lowland.uncertainty.dropout import has_dropout

BASELINES = ("temperature", "dropout", "laplace")
MOST = 20_000_000  # numbers of a mixture's components that are held for its exact CRPS
Components = tuple[Tensor, Tensor]  # means and variances, (S, N, D)
_Predict = Callable[[Any, Progress], Predictive]  # of a loader


@dataclass(frozen=True)
class Judged:
    """A method's predictions: `shifted` one a shift, `strange` by set."""

    title: str
    test: Predictive
    clean: Predictive | None = None  # the rows of `test` that were corrupted
    shifted: list[Predictive] = field(default_factory=list)
    strange: dict[str, Predictive] = field(default_factory=dict)
    mixture: Components | None = None

    def tempered(self, temperature: float, task: Task, title: str) -> Judged:
        """The same with every probability raised to 1/T."""

        def one(pred: Predictive) -> Predictive:
            return temper(pred, temperature, task=task)

        return Judged(
            title,
            one(self.test),
            None if self.clean is None else one(self.clean),
            [one(pred) for pred in self.shifted],
            {name: one(pred) for name, pred in self.strange.items()},
        )


class Predictions:
    """The predictions of a run, made once and kept in `cache`."""

    def __init__(self, run: FinishedRun, asked: Asked, cache: Path) -> None:
        self.run = run
        self.asked = asked
        self.cache = cache
        self.setup = Setup(run.config)
        self.results = Results(Run(run.config, self.setup), run.folder.path)
        self.task = self.setup.task
        self.strange = Strange(self.setup, asked)
        self.notes = self.strange.notes

    def judged(self, bars: Bars) -> Iterator[tuple[str, Judged]]:
        """Every method, then the baselines."""
        self.bars = bars
        wanted = [one for one in BASELINES if self._wants(one)]  # refused before it costs time
        for method in self.results.run.methods:
            if method.name in BASELINES:  # a row of the run, which is asked for anew here
                continue
            found = self._method(method)
            yield method.name, found
            if method.name == "sgd" and "temperature" in wanted:
                _, tuned = self.results.posterior(method)
                title = "SGD, tempered"
                yield "temperature", found.tempered(tuned["temperature"], self.task, title)
        if "dropout" in wanted:
            yield "dropout", self._dropout(self._point())
        if "laplace" in wanted:
            made = self._laplace(self._point())
            if made is not None:
                yield "laplace", made

    def _method(self, method: Method) -> Judged:
        post, _ = self.results.posterior(method)
        config = self.run.config
        options: dict[str, Any] = {"samples": config.samples, "seed": config.seed}
        if post.support is not None:
            options["samples"] = None

        def ask(loader: Any, progress: Progress) -> Predictive:
            return predict(self.setup.surface, post, loader, progress=progress, **options)

        test = self.results.prediction(method)
        key = [method.name, self.results.run.prediction(method).fingerprint]
        mixture = self._mixture(post, test, options)
        title = method.label(self.results.run)
        return self._ask(method.name, title, key, ask, test, mixture)

    def _ask(
        self,
        name: str,
        title: str,
        key: list[str],
        ask: _Predict,
        test: Predictive | None = None,
        mixture: Components | None = None,
    ) -> Judged:
        strange, setup = self.strange, self.setup
        bar = self.bars.add(f"{self.run.name}: {title}")
        if test is None:
            test = self._kept(f"{name}-test", key, lambda: ask(setup.test, bar))
        shifted: list[Predictive] = []
        clean = None
        if strange.shifts:
            n = strange.rows
            key_now = [*key, repr(strange.shifts), str(n), str(strange.seed)]
            whole = self._kept(f"{name}-corrupted", key_now, lambda: ask(strange.corrupted(), bar))
            places = [n * i for i in range(len(strange.shifts))]
            shifted = [slice_examples(whole, first, first + n, task=self.task) for first in places]
            clean = slice_examples(test, 0, n, task=self.task)
        sets: dict[str, Predictive] = {}
        if strange.sets:
            key_now = [*key, *(f"{s}: {strange.fingerprint(s)}" for s in strange.sets)]
            whole = self._kept(f"{name}-strange", key_now, lambda: ask(strange.unlabelled(), bar))
            first = 0
            for one, inputs in strange.sets.items():
                sets[one] = _rows(whole, first, first + len(inputs), self.task)
                first += len(inputs)
        bar(1, 1)
        return Judged(title, test, clean, shifted, sets, mixture)

    def _kept(self, name: str, key: list[str], make: Callable[[], Predictive]) -> Predictive:
        """A prediction from disk, where it was made before from the same things."""
        settings = self.run.config.model_dump(mode="json", exclude={"out", "threads", "device"})
        text = json.dumps([settings, key])
        digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
        path = self.cache / f"{name}-seed{self.run.config.seed}-{digest}.npz"
        try:
            return Predictive.load(path)
        except StoreError:  # not there yet, or damaged
            made = make()
            made.save(path)
            return made

    # -- baselines -------------------------------------------------------------------------------

    def _wants(self, baseline: str) -> bool:
        """Whether a baseline is asked for, or fits where none was named."""
        asked = self.asked.baselines
        if asked is not None and baseline not in asked:
            return False
        try:
            if baseline == "temperature":
                if not isinstance(self.task, Classification):
                    raise ConfigError(f"a temperature is for classification, not {self.task!r}.")
                if "sgd" not in self.run.config.methods:
                    raise ConfigError("the run has no method sgd, which it would temper.")
                return True
            point = self._point()
            if baseline == "dropout" and not has_dropout(self.setup.surface, point):
                raise ConfigError("the network has no dropout.")
            if baseline == "laplace" and find_spec("laplace") is None:
                raise ConfigError('it needs laplace-torch: pip install "lowland[baselines]".')
        except LowlandError as error:
            self._refused(baseline, error)
            return False
        return True

    def _refused(self, baseline: str, error: LowlandError) -> None:
        if self.asked.baselines is not None:
            raise ConfigError(f"--baselines {baseline}: {error}") from error
        self.notes.append(f"No row for {baseline}: {error}")

    def _point(self) -> Point:
        """The annealed SGD run's weights."""
        return self.run.folder.load_weights("sgd-0", self.setup.layout)

    def _dropout(self, point: Point) -> Judged:
        config = self.run.config

        def ask(loader: Any, progress: Progress) -> Predictive:
            return mc_dropout(
                self.setup.surface,
                point,
                loader,
                samples=config.samples,
                seed=config.seed,
                progress=progress,
            )

        return self._ask("dropout", "MC dropout", self._weights(), ask)

    def _laplace(self, point: Point) -> Judged | None:
        fitted: list[LastLayerLaplace] = []

        def ask(loader: Any, progress: Progress) -> Predictive:
            if not fitted:
                surface, rows = self.setup.surface, self.setup.validation
                fitted.append(LastLayerLaplace(surface, point, validation=rows))
            return fitted[0].predict(loader, progress=progress)

        try:
            return self._ask("laplace", "Last-layer Laplace", self._weights(), ask)
        except LowlandError as error:
            self._refused("laplace", error)
            return None

    def _weights(self) -> list[str]:
        weights = self._point().weights
        return [str(int(example_hashes(weights.unsqueeze(0), 1)))]

    # -- regression ------------------------------------------------------------------------------

    def _mixture(
        self, post: Posterior, test: Predictive, options: dict[str, Any]
    ) -> Components | None:
        """The components of a regression's mixture, where they are few enough to hold."""
        few = test.mean is not None and test.samples * test.mean.numel() <= MOST
        if not few or not isinstance(self.task, Regression) or isinstance(post, PointMass):
            return None
        self._require_order(test)
        return components(self.setup.surface, post, self.setup.test, **options)

    @cached_property
    def _targets(self) -> Tensor:
        """Of the test rows as they come now, standardised, float64."""
        each = [self.task.parts(batch).target.cpu() for batch in self.setup.test]
        return torch.cat(each).double()

    def _require_order(self, test: Predictive) -> None:
        """Raises `DataError` where the test rows come in another order than they were predicted."""
        assert isinstance(self.task, Regression)
        assert test.targets is not None
        shift, std = self.task.units(self._targets)
        now = self._targets * std + shift
        if now.shape != test.targets.shape or not torch.allclose(now, test.targets.double()):
            raise DataError(
                f"{self.run.config.data.name}: test gives its rows in another order each time, and "
                "predictions of the run are compared with them; give it shuffle=False."
            )


def joined(title: str, runs: list[Judged], task: Task) -> Judged:
    """One row of several runs' predictions: their linear pool."""

    def one(preds: Iterable[Predictive]) -> Predictive:
        return pool(list(preds), task=task)

    shifted = [one(preds) for preds in zip(*(r.shifted for r in runs), strict=True)]
    cleans = [r.clean for r in runs if r.clean is not None]
    return Judged(
        title,
        one(r.test for r in runs),
        one(cleans) if cleans else None,
        shifted,
        {name: one(r.strange[name] for r in runs) for name in runs[0].strange},
        _joined_mixture(runs),
    )


def _joined_mixture(runs: list[Judged]) -> Components | None:
    """All components of all runs; of a single network its Gaussian."""
    parts = []
    for run in runs:
        test = run.test
        if run.mixture is not None:
            parts.append(run.mixture)
        elif test.samples == 1 and test.mean is not None and test.variance is not None:
            parts.append((test.mean.unsqueeze(0), test.variance.unsqueeze(0)))
    if len(parts) < len(runs) or len({len(mean) for mean, _ in parts}) != 1:
        return None
    if sum(mean.numel() for mean, _ in parts) > MOST:
        return None
    means, variances = zip(*parts, strict=True)
    return torch.cat(means), torch.cat(variances)


def _rows(pred: Predictive, first: int, stop: int, task: Task) -> Predictive:
    if pred.probs is not None:
        return slice_examples(pred, first, stop, task=task)
    assert pred.mean is not None
    assert pred.variance is not None
    mean, variance = pred.mean[first:stop], pred.variance[first:stop]
    return Predictive(pred.kind, pred.samples, mean=mean, variance=variance, task=pred.task)
