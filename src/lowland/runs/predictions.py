"""Artifacts of predictions: a method's model average on the test examples, and its row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lowland.artifacts import Checkpoint, Inputs
from lowland.metrics import metric_names
from lowland.progress import Report
from lowland.records import Predictive, Table
from lowland.runs.methods import Method
from lowland.runs.records import RecordArtifact, RowsTable
from lowland.uncertainty import temper

if TYPE_CHECKING:
    from lowland.runs.run import Run


class Prediction(RecordArtifact):
    """The model average of a method on the test examples."""

    kind = "prediction"
    record = Predictive

    def __init__(self, run: Run, method: Method) -> None:
        self.run = run
        self.method = method
        self.tuning = run.tuning(method)
        config = run.config
        super().__init__(
            f"predictions/{method.name}",
            [*run.evaluated("test"), *method.needs(run), self.tuning],
            run.settings(method=method.name, samples=config.samples, seed=config.seed),
            file=f"{method.name}.npz",
            title=f"predict: {method.label(run)}",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Predictive:
        tuned = inputs[self.tuning.name]
        return self.method.predict(self.run, inputs, tuned, self.run.setup.test, progress)


class Row(RecordArtifact):
    """A method's row of the comparison: metrics, what was tuned, and epochs of training."""

    kind = "row"
    quick = True
    record = Table

    def __init__(self, run: Run, method: Method) -> None:
        self.run = run
        self.method = method
        self.prediction = run.prediction(method)
        parts = [part.artifact for part in run.parts(method)]
        super().__init__(
            f"rows/{method.name}",
            [self.prediction, self.prediction.tuning, *parts],
            {"label": method.label(run)},
            file=f"{method.name}.json",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Table:
        pred = inputs[self.prediction.name]
        tuned = inputs[self.prediction.tuning.name]
        row: dict[str, Any] = {"method": self.method.label(self.run), **table_metrics(pred)}
        if "temperature" in tuned:
            tempered = temper(pred, tuned["temperature"], task=self.run.setup.task).metrics()
            row |= {"temperature": tuned["temperature"], "nll_tempered": tempered["nll"]}
            row["ece_tempered"] = tempered["ece"]
        own = {k: v for k, v in tuned.items() if k not in ("temperature", "candidate")}
        row |= {"scale": math.nan} | own
        row["samples"] = float(pred.samples)
        parts = self.run.parts(self.method)
        row["epochs"] = sum(part.share * part.artifact.passes(inputs) for part in parts)
        if self.run.shares_prefix or self.run.retrains:
            row["tuning_epochs"] = sum(
                part.share * part.artifact.passes(inputs) for part in parts if part.tuning
            )
        return Table.from_rows([row])


def table_metrics(pred: Predictive) -> dict[str, float]:
    """The metrics of a prediction that tables of runs have, in their order."""
    metrics = pred.metrics()
    return {name: metrics[name] for name in metric_names() if name in metrics}


class Comparison(RowsTable):
    """The table of all methods."""

    kind = "table"

    def __init__(self, run: Run) -> None:
        super().__init__("comparison", {row.name: row for row in map(run.row, run.methods)})
