"""An average of checkpoints as a graph: each file that people get, and what it is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowland.artifacts import Artifact, Inputs
from lowland.cli.average_files import AverageRecord, AverageWeights, Companions
from lowland.cli.average_metrics import AverageEvaluator, AverageTable, MetricsRow, ScaleTuning
from lowland.cli.average_moments import CheckpointMean, CheckpointSet, CheckpointSWAG
from lowland.posteriors import PointMass, Posterior
from lowland.trajectory import EMA, SWA


@dataclass(frozen=True)
class AverageOptions:
    """The options of the command line."""

    rank: int = 20
    swag: bool = True
    ema: float | None = None
    where: str | None = None
    config: Path | None = None
    each: bool = False
    trust: bool = False


class AverageGraph:
    """The artifacts of an average, each made once.

    Args:
        evaluator: None without a configuration: nothing is evaluated then.

    Attributes:
        means: the moments of SWA (or SWAG, whose mean it is) and EMA by name. table: None without
            an evaluator. files: where people find the averages, by their titles.
    """

    def __init__(
        self,
        checkpoints: CheckpointSet,
        evaluator: AverageEvaluator | None,
        options: AverageOptions,
    ) -> None:
        self.checkpoints = checkpoints
        self.evaluator = evaluator
        self.options = options
        self.swag = (
            CheckpointSWAG(checkpoints, evaluator, rank=options.rank) if options.swag else None
        )
        self.means = self._means()
        self.tuning = (
            ScaleTuning(evaluator, self.swag) if evaluator is not None and self.swag else None
        )
        self.table = None if evaluator is None else AverageTable(self._rows(evaluator))
        self.record = AverageRecord(checkpoints, self.means["swa"], self.tuning, self._notes())
        self.weights = {
            name: AverageWeights(checkpoints, mean, name, self._place(name))
            for name, mean in self.means.items()
        }
        self.files = {name.upper(): each.place for name, each in self.weights.items()}
        if self.swag is not None:
            self.files["SWAG"] = "swag.safetensors"

    def targets(self) -> list[Artifact]:
        """What the folder shows."""
        targets: list[Artifact] = [*self.weights.values(), self.record]
        if self.swag is not None:
            targets.append(self.swag)
        if self.table is not None:
            targets.append(self.table)
        selection, last = self.checkpoints.selection, self.checkpoints.last
        if selection.pretrained:
            targets.append(Companions(selection, dequantized=bool(last.dequantized)))
        return targets

    def _means(self) -> dict[str, CheckpointMean]:
        checkpoints, evaluator = self.checkpoints, self.evaluator
        means = {"swa": self.swag or CheckpointMean(checkpoints, evaluator, "swa", SWA)}
        if self.options.ema is not None:
            decay = self.options.ema
            means["ema"] = CheckpointMean(checkpoints, evaluator, "ema", EMA, decay=decay)
        return means

    def _place(self, name: str) -> str:
        """The file of weights: `model.safetensors` beside what `from_pretrained` needs."""
        selection = self.checkpoints.selection
        if name == "swa" and selection.last.path.name.startswith("adapter"):
            name = "adapter_model"
        elif name == "swa" and selection.pretrained:
            name = "model"
        return f"{name}.safetensors"

    def _notes(self) -> Mapping[str, Any]:
        return {
            "rank": None if self.swag is None else self.swag.rank,
            "ema": self.options.ema,
            "where": self.options.where,
            "key": self.checkpoints.selection.key,
        }

    def _rows(self, evaluator: AverageEvaluator) -> list[MetricsRow]:
        """Checkpoints as they are, and averages with new BatchNorm statistics."""
        count = len(self.checkpoints.sources)
        numbers = range(count) if self.options.each else [count - 1]
        rows = [self._checkpoint_row(evaluator, number) for number in numbers]
        rows += [self._mean_row(evaluator, name, mean) for name, mean in self.means.items()]
        if self.tuning is not None:
            rows.append(self._swag_row(evaluator, self.tuning))
        return rows

    def _checkpoint_row(self, evaluator: AverageEvaluator, number: int) -> MetricsRow:
        checkpoints = self.checkpoints
        source, label = checkpoints.sources[number], "last checkpoint"
        if number < len(checkpoints.sources) - 1:
            label = f"step {checkpoints.trajectory(0, len(checkpoints.sources)).steps[number]}"

        def posterior(inputs: Inputs) -> Posterior:
            return PointMass(checkpoints.trajectory(number, number + 1)[0])

        name = source.name
        return MetricsRow(evaluator, name, label, [source], posterior, batchnorm="frozen")

    def _mean_row(self, evaluator: AverageEvaluator, name: str, mean: CheckpointMean) -> MetricsRow:
        def posterior(inputs: Inputs) -> Posterior:
            return PointMass(inputs[mean.name].point)

        return MetricsRow(evaluator, name, name.upper(), [mean], posterior)

    def _swag_row(self, evaluator: AverageEvaluator, tuning: ScaleTuning) -> MetricsRow:
        def posterior(inputs: Inputs) -> Posterior:
            gaussian: Posterior = inputs[tuning.swag.name].posterior(**inputs[tuning.name])
            return gaussian

        config = evaluator.config
        return MetricsRow(
            evaluator,
            "swag",
            "SWAG",
            [tuning.swag],
            posterior,
            tuning=tuning,
            samples=config.samples,
            seed=config.seed,
        )
