"""How simplexes grew, the surface over a triangle, and the functions that a posterior draws."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lowland.records.base import Record
from lowland.records.table import Table


@dataclass(frozen=True, eq=False)
class GrowthResult(Record):
    r"""The growth of a simplex, one value per step: its volume, and the loss inside it.

    Vertices are added while the loss inside stays low (SPRO, Benton et al. 2021).

    Attributes:
        vertices: (n,) integers, how many there are after each step, the new one among them.
        log_volume: (n,) float64, NaN or -inf where there is none, as of one vertex.
        height: (n,), distance of the new vertex from the affine subspace through all before it; NaN
            for the first.
        loss_mean, loss_max: (n,), over `samples` random points of the shape and the new vertex; in
            the first step the start alone.
        accepted: (n,) bool, whether the new vertex was accepted; only the last may be False.
        unit: what `vertices` counts: "vertices", or "connectors" where a complex grew.
        examples: how many examples the losses are over. batchnorm: the policy of BatchNorm
            statistics, "none" for models without any.
        stop_reason: why growth stopped early; "" if all vertices were added.
        bound: the loss above which a vertex is rejected; NaN: none.
        metrics: other columns by name, such as "test_error_mean", "seconds"; (n,) each.

    >>> nan, loss = float("nan"), torch.tensor([0.5, 0.75])
    >>> growth = GrowthResult(
    ...     torch.tensor([1, 2]),
    ...     log_volume=torch.tensor([nan, 1.5]),
    ...     height=torch.tensor([nan, 4.5]),
    ...     loss_mean=loss,
    ...     loss_max=2 * loss,
    ...     accepted=torch.tensor([True, False]),
    ... )
    >>> growth.final_count
    1
    >>> print(growth.table())
    vertices  log_volume  height  loss_mean  loss_max  accepted
           1         nan     nan     0.5000    1.0000      True
           2      1.5000  4.5000     0.7500    1.5000     False
    """

    figure = "growth"
    vertices: Tensor
    log_volume: Tensor
    height: Tensor
    loss_mean: Tensor
    loss_max: Tensor
    accepted: Tensor
    unit: str = "vertices"
    samples: int = 0
    examples: int = 0
    batchnorm: str = "refresh"
    stop_reason: str = ""
    bound: float = math.nan
    metrics: dict[str, Tensor] = field(default_factory=dict)

    @property
    def final_count(self) -> int:
        """How many vertices, or connectors, were accepted in the end; 0 where none was."""
        accepted = self.vertices[self.accepted.bool()]
        return int(accepted[-1]) if len(accepted) else 0

    def table(self) -> Table:
        """One row per step, the columns of `metrics` last."""
        names = ("log_volume", "height", "loss_mean", "loss_max")
        columns: dict[str, Any] = {self.unit: self.vertices}
        columns |= {name: getattr(self, name) for name in names}
        return Table(columns | {"accepted": self.accepted.bool()} | self.metrics)


@dataclass(frozen=True, eq=False)
class TernaryResult(Record):
    """Metrics over a simplex of three vertices; `result.loss` is one of them.

    Attributes:
        coords: (n, 3), barycentric: shares of the vertices, which sum to one.
        metrics: {name: (n,)}: "loss", "error", ...; NaN stays NaN.
        names: of the vertices.
        lengths: (3,), distances of the vertices 0 and 1, 1 and 2, 2 and 0.
        split: the examples of the metrics, such as "test". examples: how many.
        batchnorm: the policy of BatchNorm statistics, "none" for models without any.

    >>> record = TernaryResult(
    ...     torch.eye(3), {"loss": torch.ones(3)}, lengths=torch.tensor([3, 5, 4])
    ... )
    >>> record.corners().round(decimals=4)  # a right angle at the first
    tensor([[0., 0.],
            [3., 0.],
            [0., 4.]], dtype=torch.float64)
    """

    figure = "ternary"
    coords: Tensor
    metrics: dict[str, Tensor]
    names: list[str] = field(default_factory=lambda: ["w0", "w1", "w2"])
    lengths: Tensor = field(default_factory=lambda: torch.ones(3, dtype=torch.float64))
    split: str = ""
    examples: int = 0
    batchnorm: str = "refresh"

    def __getattr__(self, name: str) -> Any:
        metrics = self.__dict__.get("metrics", {})
        if name in metrics:
            return metrics[name]
        raise AttributeError(f"no metric {name!r}; there are {', '.join(metrics)}.")

    @property
    def evaluations(self) -> int:
        """At how many points a network was evaluated."""
        return len(self.coords)

    def corners(self) -> Tensor:
        """The vertices in their own plane, (3, 2): the first at zero, the second along x."""
        a, b, c = self.lengths.double().tolist()
        x = (a * a + c * c - b * b) / (2 * a) if a > 0 else 0.0
        y = math.sqrt(max(c * c - x * x, 0.0))
        return torch.tensor([[0.0, 0.0], [a, 0.0], [x, y]], dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class FunctionsResult(Record):
    """The functions that a posterior over weights draws, at n inputs.

    Attributes:
        inputs: (n, d). draws: (S, n, C) probabilities, or (S, n, D) means in the target's units.
        mean: (n, C) or (n, D), of the model average. variance: (n, D), its total variance;
            None for classification.
        task: "classification" or "regression".
        data_inputs, data_targets: examples to draw, (m, d) and (m,) or (m, D), in their own units.
        batchnorm: the policy of BatchNorm statistics, "none" for models without any.
    """

    figure = "functions"
    inputs: Tensor
    draws: Tensor
    mean: Tensor
    variance: Tensor | None = None
    task: str = "classification"
    data_inputs: Tensor | None = None
    data_targets: Tensor | None = None
    batchnorm: str = "refresh"
