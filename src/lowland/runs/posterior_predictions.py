"""Artifacts of model averages over posteriors that a command made, and their table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.posteriors import Posterior
from lowland.progress import Report
from lowland.records import Predictive
from lowland.runs.predictions import table_metrics
from lowland.runs.records import RecordArtifact, RowsTable

if TYPE_CHECKING:
    from lowland.runs.run import Run


class PosteriorPrediction(RecordArtifact):
    """The model average of a posterior on the test examples.

    Args:
        file: of its record. label: of its row. parts: the artifacts of the posterior, which
            `posterior` makes of them. draws, seed: of a posterior that has no fixed number.
    """

    kind = "posterior-prediction"
    record = Predictive

    def __init__(
        self,
        run: Run,
        file: str,
        label: str,
        parts: Sequence[Artifact],
        posterior: Callable[[Inputs], Posterior],
        *,
        draws: int,
        seed: int,
    ) -> None:
        self.run = run
        self.label = label
        self.posterior = posterior
        self.draws = draws
        self.seed = seed
        super().__init__(
            f"predictions/{file}",
            [*run.evaluated("test"), *parts],
            run.settings(method=label, samples=draws, seed=seed),
            file=f"{file}.npz",
            title=f"predict: {label}",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Predictive:
        post, setup = self.posterior(inputs), self.run.setup
        return setup.predict(post, setup.test, draws=self.draws, seed=self.seed, progress=progress)


class AveragesTable(RowsTable):
    """A row of metrics for each prediction."""

    kind = "averages-table"

    def __init__(self, predictions: Sequence[PosteriorPrediction]) -> None:
        super().__init__("averages", {each.label: each for each in predictions})

    def row(self, label: str, result: Predictive) -> dict[str, Any]:
        return metrics_row(label, result)


def metrics_row(label: str, pred: Predictive) -> dict[str, Any]:
    """A row of a table: its label, its metrics, and how many networks it is of."""
    return {"method": label, **table_metrics(pred), "samples": float(pred.samples)}
