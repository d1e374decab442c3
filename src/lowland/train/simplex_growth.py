"""A simplex or complex of low loss that grows vertex by vertex, and its checkpoint."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, Generic, TypedDict, TypeVar

import torch
from torch import Tensor, nn

from lowland.artifacts import Checkpoint
from lowland.core import LossSurface, Point
from lowland.core.seeds import seed_for, stream
from lowland.errors import ConfigError
from lowland.geometry import Barycentric, Simplex, SimplicialComplex
from lowland.geometry.volume import height
from lowland.posteriors import Uniform
from lowland.progress import reporting
from lowland.records import GrowthResult, TrainingLog
from lowland.tensor_files import tensor_checksum
from lowland.train.fit import fit
from lowland.train.growth_options import GrowthOptions
from lowland.train.options import (
    TrainOptions,
    require_surface_decides,
    training_settings,
)
from lowland.warn import warn

KIND = "growth of simplexes 2"
S = TypeVar("S", Simplex, SimplicialComplex)
MIN_VOLUME_WEIGHT = 1e-8  # the least weight of the volume in the paper's rule


def paper_volume_weight(shape: Barycentric, strength: float, *, seed: int = 0) -> float:
    r"""\(\lambda_j = \max(\lambda^* / \log V, 10^{-8})\), V of a shape of the same structure whose
    vertices are random initialisations: Gaussian noise of the first vertex's root mean square.

    At most λ*, which it would pass where V is little more than one.

    >>> simplex = Simplex([torch.ones(100)]).grow()
    >>> weight = paper_volume_weight(simplex, 1e-6)
    >>> 1e-6 / math.log(20) < weight < 1e-6 / math.log(10)  # V is near sqrt(200)
    True
    """
    generator = stream("paper weight", seed)
    scale = float(shape.anchors[0].double().square().mean().sqrt())
    noise = torch.stack(
        [torch.randn(shape.size, generator=generator) * scale for _ in shape.anchors]
    )
    log = float(shape.with_anchors(noise.to(shape.anchors)).log_volume())
    return max(min(strength / log, strength), MIN_VOLUME_WEIGHT) if log > 0 else MIN_VOLUME_WEIGHT


class GrowthState(TypedDict):
    """A growth in its checkpoint."""

    anchors: Tensor
    buffers: dict[str, Tensor] | None
    rows: list[dict[str, float]]
    stopped: str
    read: int


class SimplexGrowth(Generic[S]):
    """Adds vertices to a shape, one fit at a time, with a row of metrics for each.

    Args:
        start: the modes. unit: what is counted, "vertices" (the mode included) or "connectors".
    """

    def __init__(
        self,
        surface: LossSurface,
        start: S,
        unit: str,
        growth: GrowthOptions,
        options: TrainOptions,
    ) -> None:
        surface.layout.check(start.anchors)
        require_surface_decides(options)
        self.surface, self.unit = surface, unit
        self.shape: S = start
        self.num_modes = 0 if unit == "vertices" else len(start.anchors)  # that are not counted
        self.growth, self.options = growth, options
        self.checkpoint = Checkpoint.of(options.checkpoint)
        self.data = surface.replayable(None, count=growth.count)
        self.num_examples = 0  # of `data`
        self.rows: list[dict[str, float]] = []
        self.stop_reason = ""
        self.settings = self._settings()

    def _settings(self) -> dict[str, Any]:
        """What must be the same for a growth to continue."""
        options, growth, surface, start = self.options, self.growth, self.surface, self.shape
        optimizer = options.optimizer_of([nn.Parameter(torch.zeros(1))])
        others = ("loader", "validate")  # the first is described; the second changes no weight
        return {
            "model": surface.layout.fingerprint,
            "task": repr(surface.task),
            "start": tensor_checksum(start.anchors, *(start.buffers or {}).values()),
            "counted": self.unit,
            "autocast": str(surface.template.autocast),
            **training_settings(
                surface.data.loader if growth.loader is None else growth.loader,
                optimizer,
                None if options.schedule is None else options.schedule(optimizer),
            ),
            **{f.name: getattr(growth, f.name) for f in fields(growth) if f.name not in others},
            **{n: getattr(options, n) for n in ("accumulate", "clip", "drop_last", "seed")},
        }

    def grow_to(self, count: int) -> S:
        """The shape with `count` vertices, or connectors, or as many as were accepted."""
        if self.num_modes + count > self.shape.size + 1:
            raise ConfigError(
                f"{self.unit}: {self.num_modes + count} vertices span no simplex in "
                f"{self.shape.size} dimensions; choose fewer."
            )
        self._resume(count)
        with reporting(self.options.progress, self.unit) as report:
            if not self.rows:
                self._save_row(self._measure(self.shape, number=0))
            elif self._num_counted() < count and not self.stop_reason:
                self._require_the_same_loss()
            first = self._num_counted()
            while not self.stop_reason and self._num_counted() < count:
                added: int = self._num_counted() - first

                def report_fit(step: int, total: int | None, added: int = added) -> None:
                    whole = None if total is None else total * (count - first)
                    report(step + added * (total or 0), whole)

                self._add_vertex(report_fit)
        if self.stop_reason:
            warn(self.stop_reason)
        self.shape = self.shape.with_anchors(self.shape.anchors)
        self.shape.log = self._record()
        return self.shape

    def _num_counted(self) -> int:
        return len(self.shape.anchors) - self.num_modes

    def _add_vertex(self, report: Callable[[int, int | None], None]) -> None:
        number = len(self.shape.anchors)
        seed = seed_for("grow", self.options.seed, number)
        larger = self.shape.grow(jitter=self.growth.jitter, seed=seed)
        growth = self.growth
        weight = growth.log_volume
        if weight is None:
            weight = paper_volume_weight(larger, growth.strength, seed=seed)
        checkpoint = self.checkpoint.part(f"fit-{number}")
        fitted = fit(
            larger,
            self.surface,
            epochs=growth.epochs,
            loader=growth.loader,
            weight_decay=growth.weight_decay,
            samples=growth.samples,
            strategy=growth.strategy,
            log_volume=weight,
            options=replace(self.options, seed=seed, checkpoint=checkpoint, progress=report),
        )
        row = self._measure(fitted, number=number + 1 - self.num_modes)
        assert isinstance(fitted.log, TrainingLog)
        row |= {"log_volume_weight": weight, "seconds": fitted.log.seconds}
        before = height(larger.seen())
        name = f"{'vertex' if self.unit == 'vertices' else 'connector'} {row['number']:.0f}"
        if not row["loss_max"] <= self._bound():
            self.stop_reason = (
                f"{name} was left out: with it the loss rises to "
                f"{row['loss_max']:.4g}, more than {self.growth.rise:g} above the start's "
                f"{self.rows[0]['loss_max']:.4g}. Fit for longer or at a lower learning rate, "
                "or allow a higher rise."
            )
        elif not row["height"] > before:
            self.stop_reason = (
                f"{name} was left out: it stands {row['height']:.3g} above the "
                f"others, no higher than at its start ({before:.3g}), so it adds no volume."
            )
        else:
            self.shape = fitted
        self._save_row(row | {"accepted": float(not self.stop_reason)})
        checkpoint.clear()

    def _measure(self, shape: Any, *, number: int) -> dict[str, float]:
        """A row of the log: losses at points of a shape, and its size."""
        if number == 0:  # the modes themselves
            table = self.surface.evaluate(self._modes(), self.data)
        else:
            samples = Uniform(shape).points(
                self.growth.points, seed=seed_for("growth points", self.options.seed)
            )
            points = itertools.chain([shape.anchor(-1)], samples)
            table = self.surface.evaluate(points, self.data)
        self.num_examples = self.data.num_examples or 0
        loss = table.loss.double()
        row = {
            "number": float(number or (1 if self.unit == "vertices" else 0)),
            "log_volume": float(shape.log_volume()) if number else math.nan,
            "height": height(shape.seen()) if number else math.nan,
            "loss_mean": float(loss.mean()),
            "loss_max": float(loss.max()),
            "accepted": 1.0,
        }
        own = {k: float(v) for k, v in (self.growth.validate or _no_metrics)(shape).items()}
        if repeated := sorted(own.keys() & row.keys()):
            raise ConfigError(
                f"validate: {', '.join(repeated)} would replace a metric of the log; choose other "
                "names."
            )
        return row | own

    def _modes(self) -> Iterator[Point]:
        return map(self.shape.anchor, range(max(self.num_modes, 1)))

    def _bound(self) -> float:
        return self.rows[0]["loss_max"] + self.growth.rise

    def _record(self) -> GrowthResult:
        names = ["number", "log_volume", "height", "loss_mean", "loss_max", "accepted"]
        every = dict.fromkeys(name for row in self.rows for name in row)
        others = [name for name in every if name not in names]

        def column(name: str) -> Tensor:
            values = [row.get(name, math.nan) for row in self.rows]
            return torch.tensor(values, dtype=torch.float64)

        return GrowthResult(
            column("number").long(),
            log_volume=column("log_volume"),
            height=column("height"),
            loss_mean=column("loss_mean"),
            loss_max=column("loss_max"),
            accepted=column("accepted").bool(),
            unit=self.unit,
            samples=self.growth.points,
            examples=self.num_examples,
            batchnorm="refresh" if self.surface.has_batchnorm else "none",
            stop_reason=self.stop_reason,
            bound=self._bound(),
            metrics={name: column(name) for name in others},
        )

    # -- its checkpoint --------------------------------------------------------------------------

    def _save_row(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        state: GrowthState = {
            "anchors": self.shape.anchors,
            "buffers": self.shape.buffers,
            "rows": self.rows,
            "stopped": self.stop_reason,
            "read": self.num_examples,
        }
        self.checkpoint.save(state, kind=KIND, same=self.settings)

    def _resume(self, count: int) -> None:
        """Continues from the checkpoint, which may have more vertices than are required now."""
        state = self.checkpoint.load(kind=KIND, same=self.settings, form=GrowthState)
        if state is None:
            return
        with self.checkpoint.restoring(KIND):
            self.num_examples = state["read"]
            self.rows = [row for row in state["rows"] if row["number"] <= count]
            self.stop_reason = state["stopped"] if len(self.rows) == len(state["rows"]) else ""
            anchors = state["anchors"].to(self.shape.anchors)[: self.num_modes + count]
            while len(self.shape.anchors) < len(anchors):  # for the structure; the vertices follow
                self.shape = self.shape.grow(jitter=self.growth.jitter)
            self.shape = self.shape.with_anchors(anchors)
            buffers = state["buffers"]
            if buffers is not None:
                n = len(anchors)
                self.shape.buffers = {k: b[:n] if len(b) > 1 else b for k, b in buffers.items()}

    def _require_the_same_loss(self) -> None:
        """Raises `ConfigError` where the checkpoint comes from other data."""
        table = self.surface.evaluate(self._modes(), self.data)
        now, then = float(table.loss.max()), self.rows[0]["loss_max"]
        if not math.isclose(now, then, rel_tol=1e-2):
            raise ConfigError(
                f"{self.checkpoint.path} comes from other data or another task: the loss at its "
                f"start is {then:.4g} there, {now:.4g} now; name another checkpoint, or delete it."
            )


def _no_metrics(shape: Any) -> dict[str, float]:
    return {}
