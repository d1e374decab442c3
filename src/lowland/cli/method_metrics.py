"""Artifacts of the metrics of a method that `lowland compare` has predictions of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.cli.ood import Corruption
from lowland.cli.predictions import MethodPredictions
from lowland.core import Classification, Regression, Task
from lowland.evaluate.slicing import slice_examples
from lowland.metrics import metric_names
from lowland.progress import Report
from lowland.records import Predictive
from lowland.scoring import crps, scores
from lowland.tensor_files import load_tree, save_tree
from lowland.uncertainty import ood, selective

_FILE = "metrics.safetensors"
_KIND = "compare-metrics"


class RunMetrics(TypedDict):
    """The metrics of a method in one run.

    `test`: all, means over corruptions and the first score of each out-of-distribution set
    included. `clean`: of the test examples that were corrupted. `corrupted`: by set.
    `ood`: AUROC and FPR95 by set and score. `crps_of`: of what the CRPS is; empty without one.
    """

    test: dict[str, float]
    clean: dict[str, float]
    corrupted: dict[str, dict[str, float]]
    ood: dict[str, dict[str, dict[str, float]]]
    crps_of: str


class MethodMetrics(Artifact):
    """The metrics of a method in one run, or of its pool over runs.

    Args:
        corruptions: those of the corrupted sets; the first examples of the test split are clean.
    """

    kind = "method-metrics"
    quick = True

    def __init__(
        self,
        prefix: str,
        predictions: MethodPredictions,
        corruptions: Sequence[Corruption],
        task: Task,
    ) -> None:
        self.predictions = predictions
        self.corruptions = tuple(corruptions)
        self.task = task
        components = [] if predictions.components is None else [predictions.components]
        super().__init__(
            f"metrics/{prefix}/{predictions.key}",
            [*predictions.sets.values(), *components],
            {"examples": corruptions[0].examples if corruptions else 0},
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> RunMetrics:
        predictions, task = self.predictions, self.task
        test: Predictive = inputs[predictions.test.name]
        metrics = dict(test.metrics())
        crps_of = ""
        if isinstance(task, Classification):
            metrics["aurc"] = selective(test, task=task).aurc
        if isinstance(task, Regression):
            metrics |= scores(test)
            mixture = predictions.components
            components = None if mixture is None else inputs[mixture.name]
            crps_of = "Gaussian" if components is None else "mixture"
            if components is not None and test.targets is not None:
                metrics["crps"] = float(crps(test.targets, *components).mean())
        sets = predictions.sets
        corrupted = {each.name: inputs[sets[each.name].name].metrics() for each in self.corruptions}
        clean = {}
        if corrupted:
            clean = slice_examples(test, 0, self.corruptions[0].examples, task=task).metrics()
            for name in metric_names():
                if name in clean:
                    mean = sum(each[name] for each in corrupted.values()) / len(corrupted)
                    metrics[f"{name}_corrupted"] = mean
        separation: dict[str, dict[str, dict[str, float]]] = {}
        for name, artifact in predictions.ood.items():
            table = ood(test, inputs[artifact.name], task=task)
            separation[name] = {
                row.pop("score"): {key: float(value) for key, value in row.items()}
                for row in table.rows()
            }
            first = next(iter(separation[name].values()))
            metrics |= {f"auroc_{name}": first["auroc"], f"fpr95_{name}": first["fpr95"]}
        metrics["samples"] = float(test.samples)
        return {
            "test": metrics,
            "clean": clean,
            "corrupted": corrupted,
            "ood": separation,
            "crps_of": crps_of,
        }

    def save(self, result: RunMetrics, folder: Path) -> None:
        save_tree(folder / _FILE, result, kind=_KIND)

    def load(self, folder: Path) -> RunMetrics:
        metrics: RunMetrics = load_tree(folder / _FILE, kind=_KIND, form=RunMetrics)
        return metrics


@dataclass(frozen=True)
class MethodRow:
    """A method in the tables.

    Attributes:
        runs: its metrics in each run; one alone for a pool over runs.
    """

    runs: tuple[MethodMetrics, ...]

    @property
    def key(self) -> str:
        """The name of the method in artifacts."""
        return self.runs[0].predictions.key

    @property
    def title(self) -> str:
        """Its name in tables."""
        return self.runs[0].predictions.title
