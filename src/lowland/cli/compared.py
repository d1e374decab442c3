"""A run that is compared: its methods and the baselines, as artifacts of their predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from lowland.artifacts import Artifact, Source
from lowland.cli.components import MixtureComponents, method_components
from lowland.cli.load_runs import FinishedRun
from lowland.cli.ood import BASELINES, CompareOptions, ShiftedData
from lowland.cli.predictions import (
    TEST,
    MethodPredictions,
    OnePass,
    Predict,
    SetPrediction,
    temperature_scaled,
)
from lowland.core import Regression
from lowland.errors import ConfigError, LowlandError
from lowland.progress import Report
from lowland.records import Predictive
from lowland.runs.methods import Method, method_named
from lowland.runs.methods.annealed import AnnealedMethod
from lowland.runs.methods.laplace import Laplace
from lowland.runs.results import External, Results
from lowland.runs.run import Run

_SGD = "sgd"  # the method that gets a temperature


class ComparedRun:
    """A finished run, its shifted data, and the predictions to make of both.

    Args:
        is_done: whether an artifact of the folder of the comparison is.

    Attributes:
        notes: what was left out because it does not fit, and why.
    """

    def __init__(
        self,
        finished: FinishedRun,
        options: CompareOptions,
        *,
        is_done: Callable[[Artifact], bool],
    ) -> None:
        self.name = finished.name
        self.options = options
        self.is_done = is_done
        self.config = finished.config
        self.run = Run(finished.config, finished.setup())
        self.setup = self.run.setup
        self.results = Results(self.run, finished.folder.path)
        self.shifted = ShiftedData(self.setup, options)
        self.prefix = f"seed-{finished.config.seed}"
        self.notes = self.shifted.notes
        self._inputs: dict[str, Source] = {}
        self._baselines = {name: method_named(name) for name in BASELINES}

    def methods(self) -> list[MethodPredictions]:
        """Every method, then the baselines; a temperature stands behind annealed SGD."""
        baselines = [name for name in BASELINES if self._fits(name)]
        rows: list[MethodPredictions] = []
        for method in self.run.methods:
            if method.name in BASELINES:  # a row of the run, which is one of the options here
                continue
            rows.append(self._method(method))
            if method.name == _SGD and "temperature" in baselines:
                tuning = self._input(self.run.tuning(method))
                rows.append(
                    temperature_scaled(rows[-1], tuning, prefix=self.prefix, task=self.setup.task)
                )
        return rows + [self._baseline(name) for name in baselines if name != "temperature"]

    def _method(self, method: Method) -> MethodPredictions:
        """A method of the run, whose prediction for the test examples is there."""
        prediction = self.run.prediction(method)
        inputs = [self._input(each) for each in prediction.inputs]
        title = method.label(self.run)
        test = self._input(prediction)
        shifted = self._shifted(method, title, inputs, partial(self._predict, method))
        components = None
        if isinstance(self.setup.task, Regression):
            components = MixtureComponents(
                "components",
                f"{self.prefix}/{method.name}",
                [test, *inputs],
                lambda inputs: method_components(self.results, method, inputs[test.name]),
                settings=prediction.settings,
                title=f"{self.name}: {title}",
            )
        return MethodPredictions(method.name, title, {TEST: test, **shifted}, components)

    def _predict(self, method: Method, loader: Iterable[Any], progress: Report) -> Predictive:
        """The prediction of a method at the values that the run chose."""
        tuned = {} if method.name in BASELINES else self.results.load(self.run.tuning(method))
        return method.predict(self.run, self.results.inputs(method), tuned, loader, progress)

    def _shifted(
        self, method: Method, title: str, inputs: list[Source], predict: Predict
    ) -> dict[str, Artifact]:
        """The predictions for corrupted and for out-of-distribution sets."""
        predictions: dict[str, Artifact] = {}
        for sets in self.shifted.passes(self.prefix):
            together = OnePass(predict, self.setup.task, is_done=self.is_done)
            for data in sets:
                predictions[data.name] = together.add(
                    f"{self.prefix}/{method.name}",
                    data,
                    inputs,
                    self.run.prediction(method).values(),
                    title=f"{self.name}: {title}",
                )
        return predictions

    def _input(self, artifact: Artifact) -> Source:
        """An artifact or a source of the run as an input here, under the name of the run."""
        if artifact.name not in self._inputs:
            name = f"{self.prefix}/{artifact.name}"
            self._inputs[artifact.name] = (
                Source(name, artifact.value, artifact.content)
                if isinstance(artifact, Source)
                else External(self.results, artifact, name)
            )
        return self._inputs[artifact.name]

    # -- baselines -------------------------------------------------------------------------------

    def _fits(self, name: str) -> bool:
        """Whether a baseline is an option that was given, or fits where none was given."""
        names = self.options.baselines
        if names is not None and name not in names:
            return False
        try:
            self._check_baseline(name)
        except LowlandError as error:
            if names is not None:
                raise ConfigError(f"--baselines {name}: {error}") from error
            self.notes.append(f"No row for {name}: {error}")
            return False
        return True

    def _check_baseline(self, name: str) -> None:
        """Raises `LowlandError` where a baseline does not fit the run."""
        method = self._baselines[name]
        assert isinstance(method, AnnealedMethod)
        if name == "temperature" and _SGD not in self.config.methods:
            raise ConfigError("the run has no method sgd, whose probabilities it would scale.")
        if not self.run.trains_annealed():
            raise ConfigError("the run has no network of annealed SGD.")
        if reason := method.misfit(self.run):
            raise ConfigError(f"{reason}.")
        if isinstance(method, Laplace) and not self.is_done(self._baseline(name).test):
            method.approximation(self.run, self.results.inputs(method))  # which may be refused

    def _baseline(self, name: str) -> MethodPredictions:
        """A baseline around the annealed network of the run."""
        method = self._baselines[name]
        prediction = self.run.prediction(method)
        inputs = [self._input(each) for each in prediction.inputs if each != prediction.tuning]
        title = method.label(self.run)
        predict = partial(self._predict, method)
        test = SetPrediction(
            "baseline-prediction",
            f"{self.prefix}/{name}/{TEST}",
            inputs,
            lambda _, progress: predict(self.setup.test, progress),
            settings=prediction.settings,
            title=f"{self.name}: {title}",
        )
        shifted = self._shifted(method, title, inputs, predict)
        return MethodPredictions(name, title, {TEST: test, **shifted})
