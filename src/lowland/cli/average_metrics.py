"""Test metrics of averaged checkpoints, with the model and the data of a configuration."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lowland.cli.bars import Bars
from lowland.core import ParamLayout
from lowland.core.names import clean
from lowland.errors import LayoutError
from lowland.evaluate import predict
from lowland.posteriors import PointMass
from lowland.progress import Report
from lowland.records import Table
from lowland.runs.posterior_predictions import metrics_row
from lowland.runs.sections import Config
from lowland.runs.setup import Setup
from lowland.trajectory import EMA, SWA, SWAG
from lowland.trajectory.checkpoint_tensors import match_layout
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
        self.last = _load(model, last)
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


def _load(model: nn.Module, last: dict[str, Tensor]) -> dict[str, Tensor]:
    """Loads a checkpoint into the model; returns the tensors that the model has."""
    layout = ParamLayout(model)
    try:
        tensors = match_layout(last, layout)
        layout.load_(model, layout.flatten(tensors))
    except LayoutError as error:
        raise LayoutError(f"the checkpoints and the model of the configuration: {error}") from None
    own = {n: t for n, t in clean(model.state_dict()).items() if isinstance(t, Tensor)}
    missing = [n for n in own if n not in {*tensors, *layout.names, *layout.aliases}]
    if missing:
        raise LayoutError(
            f"the checkpoints lack {', '.join(missing[:5])} of the model of the configuration; "
            "name the model that they were saved from."
        )
    tensors = {n: t for n, t in tensors.items() if n in own}
    with torch.no_grad():
        for name, tensor in tensors.items():
            if own[name].shape != tensor.shape:
                raise LayoutError(
                    f"{name} is {tuple(tensor.shape)} in the checkpoints, and "
                    f"{tuple(own[name].shape)} in the model of the configuration; name the model "
                    "that they were saved from."
                )
            own[name].copy_(tensor)
    return tensors
