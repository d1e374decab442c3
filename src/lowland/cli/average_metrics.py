"""Artifacts of metrics of averaged checkpoints, with the model and data of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lowland.artifacts import Artifact, Checkpoint, Inputs, Source
from lowland.evaluate import predict
from lowland.files import write_json
from lowland.posteriors import Posterior
from lowland.progress import Report
from lowland.records import Table
from lowland.runs.plan import RunPlan
from lowland.runs.posterior_predictions import metrics_row
from lowland.runs.pretrained import load_checkpoint
from lowland.runs.records import RecordArtifact, RowsTable
from lowland.runs.run import Run
from lowland.runs.sections import Config
from lowland.runs.setup import Setup
from lowland.runs.sources import hash_of
from lowland.runs.tuning import FILE
from lowland.schema import read_json
from lowland.train.model_state import model_state
from lowland.uncertainty import tune_scale

TABLE = "comparison.json"


class AverageEvaluator:
    """The model of a configuration with the last checkpoint in it, and its data.

    Attributes:
        surface: the loss of the model; tensors outside of `where` are those of the last checkpoint.
        last: the tensors of the last checkpoint under the names of the model.
    """

    def __init__(self, config: Config, last: dict[str, Tensor], where: str | None) -> None:
        self.run = Run(config, Setup(config))
        self.setup = self.run.setup
        self.config = config
        model = self.setup.model(0)
        self.last = load_checkpoint(model, last, source="the checkpoints")
        self.surface = self.setup.surface_of(model, where=where)
        self.layout = self.surface.layout
        content = hash_of([str(model), model_state(model)])
        self.model = Source("model", None, {"name": config.model.name, "hash": content})

    def follow(self, plan: RunPlan) -> None:
        """Evaluates by a plan from now on."""
        self.setup.follow(plan)
        self.surface.options = self.setup.surface.options

    def statistics(self) -> list[Artifact]:
        """The inputs of what has statistics estimated: the model, and examples if it has any."""
        return [self.model, *(self.run.statistics() if self.surface.has_batchnorm else [])]

    def statistics_settings(self) -> dict[str, Any]:
        """How they are estimated."""
        return self.run.evaluation() if self.surface.has_batchnorm else {}

    def inputs(self, split: str, *, frozen: bool = False) -> list[Artifact]:
        """The inputs of what is evaluated on a split; `frozen`: with statistics as they are."""
        statistics = [self.model] if frozen else self.statistics()
        return [*self.run.named_sources("task", f"data/{split}"), *statistics]


class ScaleTuning(Artifact):
    """The scale of SWAG's covariance that is best on validation examples."""

    kind = "scale"

    def __init__(self, evaluator: AverageEvaluator, swag: Artifact) -> None:
        self.evaluator = evaluator
        self.swag = swag
        config = evaluator.config
        super().__init__(
            "tuning/swag",
            [*evaluator.inputs("validation"), swag],
            evaluator.run.settings(
                scales=config.average.scales, samples=config.samples, seed=config.seed
            ),
            title="choose SWAG's scale",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> dict[str, float]:
        config = self.evaluator.config
        _, table = tune_scale(
            self.evaluator.surface,
            inputs[self.swag.name].posterior(),
            self.evaluator.setup.validation,
            scales=config.average.scales,
            samples=config.samples,
            seed=config.seed,
            progress=progress,
        )
        return {"scale": float(table.scale[table.nll.argmin()])}

    def save(self, result: dict[str, float], folder: Path) -> None:
        write_json(folder / FILE, result)

    def load(self, folder: Path) -> dict[str, float]:
        return read_json(folder / FILE, dict[str, float])


class MetricsRow(RecordArtifact):
    """The test metrics of a checkpoint or an average.

    Args:
        name: of the artifact. label: of the row. parts: the artifacts of the posterior, which
            `posterior` makes of them. tuning: of SWAG, whose value the row shows. options: of the
            prediction, plain values.
    """

    kind = "metrics-row"
    record = Table

    def __init__(
        self,
        evaluator: AverageEvaluator,
        name: str,
        label: str,
        parts: Sequence[Artifact],
        posterior: Callable[[Inputs], Posterior],
        *,
        tuning: ScaleTuning | None = None,
        **options: Any,
    ) -> None:
        self.evaluator = evaluator
        self.label = label
        self.posterior = posterior
        self.tuning = tuning
        self.options = options
        super().__init__(
            f"rows/{name}",
            [
                *evaluator.inputs("test", frozen=options.get("batchnorm") == "frozen"),
                *parts,
                *([] if tuning is None else [tuning]),
            ],
            evaluator.run.settings(label=label, **options),
            file=f"{name}.json",
            title=f"predict: {label}",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Table:
        evaluator = self.evaluator
        pred = predict(
            evaluator.surface,
            self.posterior(inputs),
            evaluator.setup.test,
            progress=progress,
            **self.options,
        )
        tuned = {} if self.tuning is None else inputs[self.tuning.name]
        return Table.from_rows([metrics_row(self.label, pred) | tuned])

    def view(self) -> Mapping[str, str]:
        return {}


class AverageTable(RowsTable):
    """comparison.json: the metrics of checkpoints and averages on the test split."""

    kind = "average-table"

    def __init__(self, rows: Sequence[MetricsRow]) -> None:
        super().__init__("comparison", {row.name: row for row in rows})

    def view(self) -> Mapping[str, str]:
        return {self.file: TABLE}
