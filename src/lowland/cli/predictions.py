"""Artifacts of predictions that `lowland compare` makes: methods of runs on shifted data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

from lowland.artifacts import Artifact, Checkpoint, Inputs, Settings
from lowland.cli.components import pooled_components
from lowland.cli.ood import OOD, ShiftedSet
from lowland.core import Regression, Task
from lowland.evaluate import pool
from lowland.evaluate.slicing import slice_examples
from lowland.progress import Report
from lowland.records import Predictive
from lowland.runs.methods.temperature import TemperatureScaling
from lowland.runs.records import RecordArtifact
from lowland.uncertainty import temper

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


class SetPrediction(RecordArtifact):
    """A prediction for a set of examples, which the folder keeps for itself.

    Args:
        kind: how it is made. predict: makes it of the inputs. title: of its progress bar; empty:
            none, for it takes a moment.
    """

    record = Predictive

    def __init__(
        self,
        kind: str,
        name: str,
        inputs: Sequence[Artifact],
        predict: Callable[[Inputs, Report], Predictive],
        *,
        settings: Settings | None = None,
        title: str = "",
    ) -> None:
        self.kind = kind
        self.quick = not title
        self.predict = predict
        super().__init__(
            f"predictions/{name}", inputs, settings, file="prediction.npz", title=title
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Predictive:
        return self.predict(inputs, progress)

    def view(self) -> Mapping[str, str]:
        return {}


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
        self._sets: list[tuple[SetPrediction, ShiftedSet]] = []
        self._predictions: dict[str, Predictive] = {}

    def add(
        self,
        prefix: str,
        data: ShiftedSet,
        inputs: Sequence[Artifact],
        prediction: Mapping[str, Any],
        *,
        title: str,
    ) -> SetPrediction:
        """The prediction for a corrupted or an out-of-distribution set.

        `prediction`: the settings of the method's predictions.
        """
        name = f"{prefix}/{data.name}"
        corruption = None if data.corruption is None else asdict(data.corruption)
        artifact = SetPrediction(
            "shifted-prediction",
            name,
            [*inputs, *data.sources],
            lambda _, progress: self._prediction(artifact.name, progress),
            settings={"prediction": prediction, "corruption": corruption},
            title=title,
        )
        self._sets.append((artifact, data))
        return artifact

    def _prediction(self, name: str, progress: Report) -> Predictive:
        """The prediction of one set; those of the others are kept until they are requested."""
        if name not in self._predictions:
            missing = [(each, data) for each, data in self._sets if not self.is_done(each)]
            whole = self.predict(_Chained([data.loader for _, data in missing]), progress)
            first = 0
            for each, data in missing:
                stop = first + data.size
                part = slice_examples(whole, first, stop, task=self.task)
                self._predictions[each.name] = part
                first = stop
        return self._predictions.pop(name)


class _Chained:
    """The batches of several loaders, one after another."""

    def __init__(self, loaders: Sequence[Iterable[Any]]) -> None:
        self.loaders = loaders

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self.loaders)


def temperature_scaled(
    sgd: MethodPredictions, tuning: Artifact, *, prefix: str, task: Task
) -> MethodPredictions:
    """The predictions of annealed SGD at the temperature that the run chose.

    `prefix`: of the names of the run's artifacts.
    """
    method = TemperatureScaling

    def scaled(name: str, prediction: Artifact) -> SetPrediction:
        def predict(inputs: Inputs, progress: Report) -> Predictive:
            return temper(inputs[prediction.name], inputs[tuning.name]["temperature"], task=task)

        name = f"{prefix}/{method.name}/{name}"
        return SetPrediction("temperature-scaled-prediction", name, [prediction, tuning], predict)

    sets = {name: scaled(name, each) for name, each in sgd.sets.items()}
    return MethodPredictions(method.name, method.title, sets)


def pooled(title: str, runs: Sequence[MethodPredictions], *, task: Task) -> MethodPredictions:
    """The linear pool of the predictions of several runs, which have the same sets."""
    name = f"pooled/{runs[0].key}"

    def predict(inputs: Inputs, progress: Report) -> Predictive:
        return pool(list(inputs.values()), task=task)

    def pool_of(set_name: str) -> SetPrediction:
        parts = [run.sets[set_name] for run in runs]
        return SetPrediction("pooled-prediction", f"{name}/{set_name}", parts, predict)

    components = pooled_components(name, runs) if isinstance(task, Regression) else None
    sets = {each: pool_of(each) for each in runs[0].sets}
    return MethodPredictions(f"pooled-{runs[0].key}", title, sets, components)
