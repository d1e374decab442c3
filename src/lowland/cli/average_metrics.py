"""Test metrics of averaged checkpoints, with the model and the data of a configuration."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lowland.cli.bars import Bars
from lowland.evaluate import predict
from lowland.posteriors import PointMass
from lowland.progress import Report
from lowland.records import Table
from lowland.runs.posterior_predictions import metrics_row
from lowland.runs.pretrained import load_checkpoint
from lowland.runs.sections import Config
from lowland.runs.setup import Setup
from lowland.trajectory import EMA, SWA, SWAG
from lowland.trajectory.iterates import Iterates
from lowland.uncertainty import tune_scale


class AverageEvaluator:
    """The model of a configuration with the last checkpoint in it, and its data.

    Attributes:
        surface: the loss of the model; tensors outside of `where` are those of the last checkpoint.
        last: the tensors of the last checkpoint under the names of the model.
        tuned: the values that were chosen on validation data.
    """

    def __init__(self, config: Config, last: dict[str, Tensor], where: str | None) -> None:
        self.setup = Setup(config)
        model = self.setup.model(0)
        self.last = load_checkpoint(model, last, source="the checkpoints")
        self.surface = self.setup.surface_of(model, where=where)
        self.layout = self.surface.layout
        self.tuned: dict[str, float] = {}

    def table(
        self, traj: Iterates, swa: SWA | SWAG, ema: EMA | None, *, each: bool, bars: Bars
    ) -> Table:
        """Test metrics of checkpoints as they are, and of averages with new BatchNorm statistics.

        `each`: of every checkpoint; else of the last.
        """
        rows = []
        for i in range(0 if each else len(traj) - 1, len(traj)):
            name = "last checkpoint" if i == len(traj) - 1 else f"step {traj.steps[i]}"
            rows.append(self._row(name, PointMass(traj[i]), bars, batchnorm="frozen"))
        rows.append(self._row("SWA", PointMass(swa.point), bars))
        if ema is not None:
            rows.append(self._row("EMA", PointMass(ema.point), bars))
        if isinstance(swa, SWAG):
            config = self.setup.config
            tuned, table = tune_scale(
                self.surface,
                swa.posterior(),
                self.setup.validation,
                scales=config.average.scales,
                samples=config.samples,
                seed=config.seed,
                progress=_repeated(bars.add("choose SWAG's scale"), len(config.average.scales)),
            )
            self.tuned["scale"] = float(table.scale[table.nll.argmin()])
            row = self._row("SWAG", tuned, bars, samples=config.samples, seed=config.seed)
            rows.append(row | {"scale": self.tuned["scale"]})
        return Table.from_rows(rows)

    def _row(self, name: str, post: Any, bars: Bars, **options: Any) -> dict[str, Any]:
        pred = predict(
            self.surface, post, self.setup.test, progress=bars.add(f"predict: {name}"), **options
        )
        return metrics_row(name, pred)


def _repeated(report: Report, times: int) -> Report:
    """A report that counts on where the same work is done several times."""
    before = last = 0

    def report_all(done: int, total: int | None) -> None:
        nonlocal before, last
        before += last if done <= last else 0
        last = done
        report(before + done, None if total is None else total * times)

    return report_all
