"""Simplexes of low loss, grown vertex by vertex, around one mode or between several."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, Generic, TypedDict, TypeVar, Unpack

import torch
from torch import Tensor, nn

from lowland import checks
from lowland.artifacts import Checkpoint
from lowland.core import LossSurface, Point
from lowland.core.seeds import seed_for, stream
from lowland.errors import ConfigError
from lowland.geometry import Barycentric, Simplex, SimplicialComplex
from lowland.geometry.volume import height
from lowland.posteriors import Uniform
from lowland.progress import reporting
from lowland.records import GrowthResult, TrainingLog
from lowland.train.fit import fit
from lowland.train.growth import GrowthKeywords, GrowthRules, growth_options
from lowland.train.model_state import weights_hash
from lowland.train.options import (
    TrainOptions,
    described,
    plain_sgd,
    require_surface_decides,
)
from lowland.warn import warn

KIND = "growth of simplexes 2"
B = TypeVar("B", bound=Barycentric)
S = TypeVar("S", Simplex, SimplicialComplex)
LEAST = 1e-8  # of the paper's weight of the volume


def spro(
    surface: LossSurface,
    w: Tensor | Point,
    *,
    vertices: int = 4,
    epochs: int = 10,
    strength: float = 1e-6,
    **options: Unpack[GrowthKeywords],
) -> Simplex:
    r"""A simplex of low loss around a mode: simplicial pointwise random optimisation.

    Vertex by vertex: `Simplex.grow` adds one at the centroid, displaced, and `fit` moves it to
    minimise \(E\, L(w) - \lambda_j \log V\) over the simplex while the others stay (Benton et al.
    2021, section 4). An ensemble of simplexes (ESPRO) is
    `Mixture([Uniform(spro(surface, w)) for w in modes])`.

    A new vertex is kept where both hold, and otherwise left out, with a warning, and growth ends:
    the highest loss at it and at `points` random points of the simplex is at most the mode's plus
    `rise`; and it stands higher above the others than it did before it was fitted.

    Args:
        w: the mode, (P,), the first vertex.
        vertices: how many in the end, the mode included.
        epochs: of the fit of each vertex.
        strength: λ* of the paper's rule \(\lambda_j = \max(\lambda^* / \log V, 10^{-8})\), V being
            the volume of a random initialisation: all vertices noise as long as the mode. It is
            no more than λ*.
        log_volume: λ_j by hand, in place of the rule.
        samples: points of the simplex a step, 5 as in the paper; see `fit`.
        strategy: "accumulate", or "vmap", which is faster for small networks; see `fit`.
        loader, weight_decay: see `fit`.
        jitter: see `Simplex.grow`.
        rise: in nats an item. points: see above. count: rows of the surface's loader that these
            losses are of; None: all.
        validate: gives further figures of the shape after each vertex, for the log.
        options: `TrainOptions`, or keyword arguments with the names of its fields, see `fit`. The
            seed is of everything. From its checkpoint the same call goes on where it was stopped,
            and with more vertices where it ended; the fit under way has a file beside it.

    Returns:
        The simplex, whose `log` is a `GrowthResult`: volume and losses at each number of vertices,
        and why it stopped.

    Raises:
        ConfigError: fewer than two vertices, or more than P + 1; a checkpoint of other settings.
            Others: see `fit`.

    >>> from lowland.core import Regression
    >>> data = [(torch.eye(3), torch.zeros(3, 1))]  # L is the square of |w|, but for constants
    >>> surface = LossSurface(nn.Linear(3, 1, bias=False), Regression(noise_variance=1.0), data)
    >>> simplex = spro(surface, torch.full((3,), 0.1), vertices=3, epochs=50, log_volume=1e-3)
    >>> simplex.log.vertices.tolist(), bool(simplex.log.loss_max[-1] < simplex.log.bound)
    ([1, 2, 3], True)
    """
    vertices = checks.whole("vertices", vertices, least=2)  # the mode included
    growth = growth_options(epochs, strength, options)
    return _Growth(surface, Simplex([w]), "vertices", *growth).to(vertices)


def connect_modes(
    surface: LossSurface,
    modes: Sequence[Tensor | Point],
    *,
    connectors: int = 2,
    epochs: int = 10,
    strength: float = 0.1,
    **options: Unpack[GrowthKeywords],
) -> SimplicialComplex:
    r"""A volume of low loss that joins modes: each spans a simplex with the connectors they share.

    Connectors are added one by one, as vertices are in `spro`, each of them in all simplexes; the
    loss is of the whole complex, uniform by volume. One connector of two modes is a chain with one
    bend.

    Args:
        modes: two or more, (P,) each; with `ll.align` less stands between them. connectors: how
            many in the end.
        strength: λ* as in `spro`; 0.1 in the paper for complexes. Others: see `spro`, the modes'
            highest loss being the one that `rise` is counted from.

    Raises:
        ConfigError: fewer than two modes, or equal ones; no connector; a checkpoint of other
            settings. Others: see `fit`.

    >>> from lowland.core import Regression
    >>> data = [(torch.eye(3), torch.zeros(3, 1))]
    >>> surface = LossSurface(nn.Linear(3, 1, bias=False), Regression(noise_variance=1.0), data)
    >>> modes = 0.1 * torch.eye(3)[:2]
    >>> volume = connect_modes(surface, modes, connectors=1, epochs=50, log_volume=1e-3)
    >>> volume.cells, torch.equal(volume.anchors[:2], modes)
    (((0, 2), (1, 2)), True)
    """
    connectors = checks.whole("connectors", connectors, least=1)
    start = SimplicialComplex.connecting(modes)
    growth = growth_options(epochs, strength, options)
    return _Growth(surface, start, "connectors", *growth).to(connectors)


def paper_weight(shape: Barycentric, strength: float, *, seed: int = 0) -> float:
    r"""\(\lambda_j = \max(\lambda^* / \log V, 10^{-8})\), V of a shape of the same structure whose
    vertices are random initialisations: Gaussian noise of the first vertex's root mean square.

    At most λ*, which it would pass where V is little more than one.

    >>> simplex = Simplex([torch.ones(100)]).grow()
    >>> 1e-6 / math.log(20) < paper_weight(simplex, 1e-6) < 1e-6 / math.log(10)  # near sqrt(200)
    True
    """
    generator = stream("paper weight", seed)
    scale = float(shape.anchors[0].double().square().mean().sqrt())
    noise = torch.stack(
        [torch.randn(shape.size, generator=generator) * scale for _ in shape.anchors]
    )
    log = float(shape.with_anchors(noise.to(shape.anchors)).log_volume())
    return max(min(strength / log, strength), LEAST) if log > 0 else LEAST


class Saved(TypedDict):
    """A shape that grows, in its file."""

    anchors: Tensor
    buffers: dict[str, Tensor] | None
    rows: list[dict[str, float]]
    stopped: str
    read: int


class _Growth(Generic[S]):
    """A shape that grows, what was found at each step, and its file."""

    def __init__(
        self,
        surface: LossSurface,
        start: S,
        counted: str,
        rules: GrowthRules,
        options: TrainOptions,
    ) -> None:
        surface.layout.check(start.anchors)
        require_surface_decides(options)
        self.surface, self.counted = surface, counted
        self.shape: S = start
        self.begun = 0 if counted == "vertices" else len(start.anchors)  # what is not counted
        self.rules, self.options = rules, options
        self.checkpoint = Checkpoint.of(options.checkpoint)
        self.data = surface.data
        if rules.count is not None:
            few = min(rules.count, self.data.count or rules.count)
            self.data = surface.replayable(self.data.loader, count=few)
        self.read = 0  # rows of it
        self.rows: list[dict[str, float]] = []
        self.stopped = ""
        self.settings = self._settings()

    def _settings(self) -> dict[str, Any]:
        """What must be the same for a growth to continue."""
        options, rules, surface, start = self.options, self.rules, self.surface, self.shape
        rule = (options.optimizer or plain_sgd)([nn.Parameter(torch.zeros(1))])
        free = ("loader", "validate")  # the first is described, the second moves nothing
        return {
            "model": surface.layout.fingerprint,
            "task": repr(surface.task),
            "start": weights_hash(start.anchors, *(start.buffers or {}).values()),
            "counted": self.counted,
            "autocast": str(surface.template.autocast),
            **described(
                surface.data.loader if rules.loader is None else rules.loader,
                rule,
                None if options.schedule is None else options.schedule(rule),
            ),
            **{f.name: getattr(rules, f.name) for f in fields(rules) if f.name not in free},
            **{n: getattr(options, n) for n in ("accumulate", "clip", "drop_last", "seed")},
        }

    def to(self, wanted: int) -> S:
        """The shape with `wanted` vertices, or connectors, or with as many as were kept."""
        if self.begun + wanted > self.shape.size + 1:
            raise ConfigError(
                f"{self.counted}: {self.begun + wanted} vertices span no simplex in "
                f"{self.shape.size} dimensions; ask for fewer."
            )
        self._resume(wanted)
        with reporting(self.options.progress, self.counted) as report:
            if not self.rows:
                self._keep(self._judged(self.shape, number=0))
            elif self._reached() < wanted and not self.stopped:
                self._require_the_same_loss()
            first = self._reached()
            while not self.stopped and self._reached() < wanted:
                behind: int = self._reached() - first

                def inside(step: int, total: int | None, done: int = behind) -> None:
                    whole = None if total is None else total * (wanted - first)
                    report(step + done * (total or 0), whole)

                self._one_more(inside)
        if self.stopped:
            warn(self.stopped)
        self.shape = self.shape.with_anchors(self.shape.anchors)
        self.shape.log = self._record()
        return self.shape

    def _reached(self) -> int:
        return len(self.shape.anchors) - self.begun

    def _one_more(self, report: Callable[[int, int | None], None]) -> None:
        number = len(self.shape.anchors)
        seed = seed_for("grow", self.options.seed, number)
        grown = self.shape.grow(jitter=self.rules.jitter, seed=seed)
        rules = self.rules
        weight = rules.log_volume
        if weight is None:
            weight = paper_weight(grown, rules.strength, seed=seed)
        fitting = self.checkpoint.part(f"fit-{number}")
        fitted = fit(
            grown,
            self.surface,
            epochs=rules.epochs,
            loader=rules.loader,
            weight_decay=rules.weight_decay,
            samples=rules.samples,
            strategy=rules.strategy,
            log_volume=weight,
            options=replace(self.options, seed=seed, checkpoint=fitting, progress=report),
        )
        row = self._judged(fitted, number=number + 1 - self.begun)
        assert isinstance(fitted.log, TrainingLog)
        row |= {"log_volume_weight": weight, "seconds": fitted.log.seconds}
        before = height(grown.seen())
        name = f"{'vertex' if self.counted == 'vertices' else 'connector'} {row['number']:.0f}"
        if not row["loss_max"] <= self._bound():
            self.stopped = (
                f"{name} was left out: with it the loss comes up to "
                f"{row['loss_max']:.4g}, more than {self.rules.rise:g} above the start's "
                f"{self.rows[0]['loss_max']:.4g}. Fit for longer or at a lower rate, or allow a "
                "higher rise."
            )
        elif not row["height"] > before:
            self.stopped = (
                f"{name} was left out: it stands {row['height']:.3g} above the "
                f"others, no higher than it began ({before:.3g}), so it adds no volume."
            )
        else:
            self.shape = fitted
        self._keep(row | {"accepted": float(not self.stopped)})
        fitting.clear()

    def _judged(self, shape: Any, *, number: int) -> dict[str, float]:
        """What is found of a shape."""
        grown = len(shape.anchors) > len(self.shape.anchors)
        if number == 0:  # the modes themselves
            each = map(shape.anchor, range(len(shape.anchors)))
            table = self.surface.evaluate(each, self.data)
        else:
            drawn = Uniform(shape).points(
                self.rules.points, seed=seed_for("growth points", self.options.seed)
            )
            points = itertools.chain([shape.anchor(-1)] if grown else (), drawn)
            table = self.surface.evaluate(points, self.data)
        self.read = self.data.num_examples or 0
        loss = table.loss.double()
        found = {
            "number": float(number or (1 if self.counted == "vertices" else 0)),
            "log_volume": float(shape.log_volume()) if number else math.nan,
            "height": height(shape.seen()) if number else math.nan,
            "loss_mean": float(loss.mean()),
            "loss_max": float(loss.max()),
            "accepted": 1.0,
        }
        more = {k: float(v) for k, v in (self.rules.validate or _nothing)(shape).items()}
        if taken := sorted(more.keys() & found.keys()):
            raise ConfigError(
                f"validate: {', '.join(taken)} would stand in the place of what is found here; "
                "name the figures otherwise."
            )
        return found | more

    def _bound(self) -> float:
        return self.rows[0]["loss_max"] + self.rules.rise

    def _record(self) -> GrowthResult:
        names = ["number", "log_volume", "height", "loss_mean", "loss_max", "accepted"]
        found = dict.fromkeys(name for row in self.rows for name in row)
        others = [name for name in found if name not in names]

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
            unit=self.counted,
            samples=self.rules.points,
            examples=self.read,
            batchnorm="refresh" if self.surface.has_batchnorm else "none",
            stop_reason=self.stopped,
            bound=self._bound(),
            metrics={name: column(name) for name in others},
        )

    # -- its file --------------------------------------------------------------------------------

    def _keep(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        state: Saved = {
            "anchors": self.shape.anchors,
            "buffers": self.shape.buffers,
            "rows": self.rows,
            "stopped": self.stopped,
            "read": self.read,
        }
        self.checkpoint.save(state, kind=KIND, same=self.settings)

    def _resume(self, wanted: int) -> None:
        """Goes on from the file, which may have come further than what is wanted now."""
        state = self.checkpoint.load(kind=KIND, same=self.settings, form=Saved)
        if state is None:
            return
        with self.checkpoint.restoring(KIND):
            self.read = state["read"]
            self.rows = [row for row in state["rows"] if row["number"] <= wanted]
            self.stopped = state["stopped"] if len(self.rows) == len(state["rows"]) else ""
            anchors = state["anchors"].to(self.shape.anchors)[: self.begun + wanted]
            while len(self.shape.anchors) < len(anchors):  # the structure; the vertices come after
                self.shape = self.shape.grow(jitter=self.rules.jitter)
            self.shape = self.shape.with_anchors(anchors)
            buffers = state["buffers"]
            if buffers is not None:
                n = len(anchors)
                self.shape.buffers = {k: b[:n] if len(b) > 1 else b for k, b in buffers.items()}

    def _require_the_same_loss(self) -> None:
        """Raises `ConfigError` where what stands in the file is of other data."""
        each = map(self.shape.anchor, range(max(self.begun, 1)))
        table = self.surface.evaluate(each, self.data)
        now, then = float(table.loss.max()), self.rows[0]["loss_max"]
        if not math.isclose(now, then, rel_tol=1e-2):
            raise ConfigError(
                f"{self.checkpoint.path} is of other data or another task: the loss that it began "
                f"with is {then:.4g} there, {now:.4g} now; name another checkpoint, or delete it."
            )


def _nothing(shape: Any) -> dict[str, float]:
    return {}
