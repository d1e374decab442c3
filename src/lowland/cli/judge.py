"""How good averages of checkpoints are, where a configuration names model and data."""

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
from lowland.runs.averaging import metrics_row
from lowland.runs.sections import Config
from lowland.runs.setup import Setup
from lowland.trajectory import EMA, SWA, SWAG, Trajectory
from lowland.trajectory.formats import match_layout
from lowland.uncertainty import tune_scale


class Judge:
    """The configuration's model with the last checkpoint in it, and its data.

    Attributes:
        surface: the loss of the model; what `where` leaves out is as in the last checkpoint.
        last: the last checkpoint's tensors, under the model's names.
        notes: what was chosen on validation data.
    """

    def __init__(self, config: Config, last: dict[str, Tensor], where: str | None) -> None:
        self.setup = Setup(config)
        model = self.setup.model(0)
        self.last = _load(model, last)
        self.surface = self.setup.surface_of(model, where=where)
        self.layout = self.surface.layout
        self.notes: dict[str, Any] = {}

    def rows(
        self, traj: Trajectory, swa: SWA | SWAG, ema: EMA | None, *, each: bool, bars: Bars
    ) -> Table:
        """Test figures: of checkpoints as they are, of averages with fresh BatchNorm statistics."""
        found = []
        for i in range(0 if each else len(traj) - 1, len(traj)):
            name = "last checkpoint" if i == len(traj) - 1 else f"step {traj.steps[i]}"
            found.append(self._row(name, PointMass(traj[i]), bars, batchnorm="frozen"))
        found.append(self._row("SWA", PointMass(swa.point), bars))
        if ema is not None:
            found.append(self._row("EMA", PointMass(ema.point), bars))
        if isinstance(swa, SWAG):
            config = self.setup.config
            tuned, table = tune_scale(
                self.surface,
                swa.posterior(),
                self.setup.validation,
                scales=config.average.scales,
                samples=config.samples,
                seed=config.seed,
                progress=_joined(bars.add("choose SWAG's scale"), len(config.average.scales)),
            )
            self.notes["scale"] = float(table.scale[table.nll.argmin()])
            row = self._row("SWAG", tuned, bars, samples=config.samples, seed=config.seed)
            found.append(row | {"scale": self.notes["scale"]})
        return Table.from_rows(found)

    def _row(self, name: str, post: Any, bars: Bars, **options: Any) -> dict[str, Any]:
        pred = predict(
            self.surface, post, self.setup.test, progress=bars.add(f"predict: {name}"), **options
        )
        return metrics_row(name, pred)


def _joined(report: Report, times: int) -> Report:
    """One count for work that is done several times over."""
    before = last = 0

    def told(done: int, total: int | None) -> None:
        nonlocal before, last
        before += last if done <= last else 0
        last = done
        report(before + done, None if total is None else total * times)

    return told


def _load(model: nn.Module, last: dict[str, Tensor]) -> dict[str, Tensor]:
    """Puts a checkpoint into the model, and gives the tensors that are the model's."""
    layout = ParamLayout(model)
    try:
        tensors = match_layout(last, layout)
        layout.load_(model, layout.flatten(tensors))
    except LayoutError as error:
        raise LayoutError(f"the checkpoints and the configuration's model: {error}") from None
    named = {n: t for n, t in clean(model.state_dict()).items() if isinstance(t, Tensor)}
    missing = [n for n in named if n not in {*tensors, *layout.names, *layout.aliases}]
    if missing:
        raise LayoutError(
            f"the checkpoints lack {', '.join(missing[:5])} of the configuration's model; name the "
            "model that they are of."
        )
    tensors = {n: t for n, t in tensors.items() if n in named}
    with torch.no_grad():
        for name, tensor in tensors.items():
            if named[name].shape != tensor.shape:
                raise LayoutError(
                    f"the checkpoints' {name} is {tuple(tensor.shape)}, that of the "
                    f"configuration's model {tuple(named[name].shape)}; name the model that they "
                    "are of."
                )
            named[name].copy_(tensor)
    return tensors
