"""Artifacts of predictions that `lowland compare` makes: methods of runs on shifted data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.cli.ood import OOD, Corruption, ShiftedSet
from lowland.core import Regression, Task
from lowland.errors import DataError
from lowland.evaluate import pool
from lowland.evaluate.mixture_components import components
from lowland.evaluate.slicing import slice_examples
from lowland.posteriors import PointMass
from lowland.posteriors.base import draw_count
from lowland.progress import Report
from lowland.records import Predictive
from lowland.runs.methods import Method
from lowland.runs.methods.temperature import TemperatureScaling
from lowland.runs.predictions import PredictionSettings
from lowland.runs.records import RecordArtifact
from lowland.runs.results import Results
from lowland.tensor_files import read_tensors, write_tensors
from lowland.uncertainty import temper

MOST = 20_000_000  # numbers of a mixture's components that are held for its exact CRPS
Components = tuple[Tensor, Tensor]  # means and variances, (S, N, D)
TEST = "test"  # the name of a set
Predict = Callable[[Iterable[Any], Report], Predictive]


@dataclass(frozen=True)
class MethodPredictions:
    """The predictions of a method in one run, or of a pool over runs, as artifacts.

    Attributes:
        key: the name of the method in artifacts. title: in tables. sets: the predictions by the
            names of the sets: "test", "corrupted/KIND-STRENGTH" and "ood/NAME". components: of the
            mixture of a regression; None where there is none.
    """

    key: str
    title: str
    sets: Mapping[str, Artifact]
    components: Artifact | None = None

    @property
    def test(self) -> Artifact:
        """The prediction for the test examples."""
        return self.sets[TEST]

    @property
    def ood(self) -> dict[str, Artifact]:
        """The predictions for out-of-distribution sets, by the names of these."""
        return {
            name.removeprefix(OOD): each for name, each in self.sets.items() if name.startswith(OOD)
        }


class PredictionArtifact(RecordArtifact):
    """A prediction that the folder keeps for itself."""

    record = Predictive

    def __init__(
        self, name: str, inputs: Sequence[Artifact], settings: Any = None, *, title: str
    ) -> None:
        self._title = title
        super().__init__(f"predictions/{name}", inputs, settings, file="prediction.npz")

    @property
    def title(self) -> str:
        return self._title

    def view(self) -> Mapping[str, str]:
        return {}


class BaselinePrediction(PredictionArtifact):
    """The prediction of a baseline for the test examples."""

    kind = "baseline-prediction"

    def __init__(
        self,
        name: str,
        inputs: Sequence[Artifact],
        settings: PredictionSettings,
        *,
        title: str,
        predict: Predict,
        loader: Iterable[Any],
    ) -> None:
        self.predict = predict
        self.loader = loader
        super().__init__(name, inputs, settings, title=title)

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Predictive:
        return self.predict(self.loader, progress)


@dataclass(frozen=True)
class ShiftedSettings:
    """What changes a prediction for a shifted set, but for weights and examples."""

    prediction: PredictionSettings
    corruption: Corruption | None


class ShiftedPrediction(PredictionArtifact):
    """A prediction for a corrupted or an out-of-distribution set.

    `together`: predicts the set with others of the same method.
    """

    kind = "shifted-prediction"

    def __init__(
        self,
        prefix: str,
        data: ShiftedSet,
        inputs: Sequence[Artifact],
        settings: PredictionSettings,
        *,
        title: str,
        together: OnePass,
    ) -> None:
        self.data = data
        self.together = together
        super().__init__(
            f"{prefix}/{data.name}",
            [*inputs, *data.sources],
            ShiftedSettings(settings, data.corruption),
            title=title,
        )
        together.members.append(self)

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Predictive:
        return self.together.prediction(self, progress)


class OnePass:
    """Predicts several sets in one pass.

    A draw of a posterior is made, and its BatchNorm statistics are estimated, once for all sets.
    Sets whose artifacts are done are left out.

    Args:
        predict: the method. is_done: whether an artifact is.
    """

    def __init__(
        self, predict: Predict, task: Task, *, is_done: Callable[[Artifact], bool]
    ) -> None:
        self.predict = predict
        self.task = task
        self.is_done = is_done
        self.members: list[ShiftedPrediction] = []
        self._predictions: dict[str, Predictive] = {}

    def prediction(self, member: ShiftedPrediction, progress: Report) -> Predictive:
        """The prediction of one set; those of the others are kept until they are requested."""
        if member.name not in self._predictions:
            missing = [each for each in self.members if not self.is_done(each)]
            whole = self.predict(_Chained([each.data.loader for each in missing]), progress)
            first = 0
            for each in missing:
                stop = first + each.data.size
                self._predictions[each.name] = examples_of(whole, first, stop, self.task)
                first = stop
        return self._predictions.pop(member.name)


class _Chained:
    """The batches of several loaders, one after another."""

    def __init__(self, loaders: Sequence[Iterable[Any]]) -> None:
        self.loaders = loaders

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self.loaders)


class TemperatureScaledPrediction(PredictionArtifact):
    """A prediction with every probability raised to 1/T."""

    kind = "temperature-scaled-prediction"
    quick = True

    def __init__(self, name: str, prediction: Artifact, tuning: Artifact, *, task: Task) -> None:
        self.prediction = prediction
        self.tuning = tuning
        self.task = task
        super().__init__(name, [prediction, tuning], title=name)

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Predictive:
        temperature = inputs[self.tuning.name]["temperature"]
        return temper(inputs[self.prediction.name], temperature, task=self.task)


class PooledPrediction(PredictionArtifact):
    """The linear pool of the predictions of several runs."""

    kind = "pooled-prediction"
    quick = True

    def __init__(self, name: str, predictions: Sequence[Artifact], *, task: Task) -> None:
        self.task = task
        super().__init__(name, predictions, title=name)

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Predictive:
        return pool([inputs[each.name] for each in self.inputs], task=self.task)


class _ComponentsArtifact(Artifact):
    """Components of a mixture of Gaussians; None where they are too many or none."""

    intermediate = True
    file = "components.safetensors"

    def save(self, result: Components | None, folder: Path) -> None:
        if result is not None:
            means, variances = (tensor.contiguous() for tensor in result)
            write_tensors(folder / self.file, {"means": means, "variances": variances}, {})

    def load(self, folder: Path) -> Components | None:
        if not (folder / self.file).is_file():
            return None
        tensors, _ = read_tensors(folder / self.file)
        return tensors["means"], tensors["variances"]


class MixtureComponents(_ComponentsArtifact):
    """The components of the mixture that a method of a regression averages on test examples."""

    kind = "components"

    def __init__(
        self,
        name: str,
        inputs: Sequence[Artifact],
        settings: PredictionSettings,
        *,
        title: str,
        test: Artifact,
        results: Results,
        method: Method,
    ) -> None:
        self._title = title
        self.test = test
        self.results = results
        self.method = method
        super().__init__(f"components/{name}", [test, *inputs], settings)

    @property
    def title(self) -> str:
        return self._title

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Components | None:
        run, test = self.results.run, inputs[self.test.name]
        few = test.mean is not None and test.samples * test.mean.numel() <= MOST
        post, _ = self.results.posterior(self.method)
        if not few or isinstance(post, PointMass):
            return None
        self._require_order(test)
        setup, config = run.setup, run.config
        samples = draw_count(post, config.samples)
        return components(setup.surface, post, setup.test, samples=samples, seed=config.seed)

    def _require_order(self, test: Predictive) -> None:
        """Raises `DataError` where the test examples come in another order than in the run."""
        setup = self.results.run.setup
        task = setup.task
        assert isinstance(task, Regression)
        assert test.targets is not None
        targets = torch.cat([task.parts(batch).target.cpu() for batch in setup.test]).double()
        shift, std = task.units(targets)
        now = targets * std + shift
        if now.shape != test.targets.shape or not torch.allclose(now, test.targets.double()):
            raise DataError(
                f"{setup.config.data.name}: test gives its examples in another order each time, "
                "and predictions of the run are compared with them; give it shuffle=False."
            )


class PooledComponents(_ComponentsArtifact):
    """The components of all runs; a single network counts as the Gaussian that it predicts."""

    kind = "pooled-components"
    quick = True

    def __init__(self, name: str, runs: Sequence[MethodPredictions]) -> None:
        self.runs = runs
        inputs = [each for run in runs for each in (run.test, run.components) if each is not None]
        super().__init__(f"components/{name}", inputs)

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Components | None:
        parts: list[Components] = []
        for run in self.runs:
            test = inputs[run.test.name]
            mixture = None if run.components is None else inputs[run.components.name]
            if mixture is not None:
                parts.append(mixture)
            elif test.samples == 1 and test.mean is not None and test.variance is not None:
                parts.append((test.mean.unsqueeze(0), test.variance.unsqueeze(0)))
        if len(parts) < len(self.runs) or len({len(mean) for mean, _ in parts}) != 1:
            return None
        if sum(mean.numel() for mean, _ in parts) > MOST:
            return None
        means, variances = zip(*parts, strict=True)
        return torch.cat(means), torch.cat(variances)


def temperature_scaled(
    sgd: MethodPredictions, tuning: Artifact, *, prefix: str, task: Task
) -> MethodPredictions:
    """The predictions of annealed SGD at the temperature that the run chose.

    `prefix`: of the names of the run's artifacts.
    """
    method = TemperatureScaling
    sets = {
        name: TemperatureScaledPrediction(f"{prefix}/{method.name}/{name}", each, tuning, task=task)
        for name, each in sgd.sets.items()
    }
    return MethodPredictions(method.name, method.title, sets)


def pooled(title: str, runs: Sequence[MethodPredictions], *, task: Task) -> MethodPredictions:
    """The linear pool of the predictions of several runs, which have the same sets."""
    name = f"pooled/{runs[0].key}"
    sets = {
        each: PooledPrediction(f"{name}/{each}", [run.sets[each] for run in runs], task=task)
        for each in runs[0].sets
    }
    components = PooledComponents(name, runs) if isinstance(task, Regression) else None
    return MethodPredictions(f"pooled-{runs[0].key}", title, sets, components)


def examples_of(pred: Predictive, first: int, stop: int, task: Task) -> Predictive:
    """Some examples of a prediction."""
    if pred.probs is not None:
        return slice_examples(pred, first, stop, task=task)
    assert pred.mean is not None
    assert pred.variance is not None
    mean, variance = pred.mean[first:stop], pred.variance[first:stop]
    return Predictive(pred.kind, pred.samples, mean=mean, variance=variance, task=pred.task)
