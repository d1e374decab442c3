"""The surface along curves and on planes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lowland.records.base import Record


@dataclass(frozen=True, eq=False)
class PathResult(Record):
    r"""Loss and error along a curve, one value per point.

    Attributes:
        t: (n,), the points' coordinates, in [0, 1] unless `outside`.
        loss, error: (n,), on the surface's own examples; `error` is a fraction, NaN for regression.
        l2: (n,), |w(t)|. distance: (n,), |w(t) - w(0)|. length: (n,), of the curve up to t.
        test_loss, test_error: (n,), on the examples of the loader, if one was given.
        metrics: further metrics by name, such as "rmse", "test_nll".
        batchnorm: the policy of BatchNorm statistics, "none" for models without any. examples: how
            many examples `loss` is over.

    >>> t = torch.linspace(0, 1, 3)
    >>> path = PathResult(t, torch.tensor([1.0, 4.0, 2.0]), *[torch.zeros(3)] * 3, length=2 * t)
    >>> path.barrier, path.summary()["loss"]["mean"]
    (2.5, 2.75)
    """

    figure = "path"
    t: Tensor
    loss: Tensor
    error: Tensor
    l2: Tensor
    distance: Tensor
    length: Tensor
    test_loss: Tensor | None = None
    test_error: Tensor | None = None
    metrics: dict[str, Tensor] = field(default_factory=dict)
    batchnorm: str = "refresh"
    examples: int = 0
    outside: bool = False

    @property
    def barrier(self) -> float:
        """The highest loss above the straight interpolation of the ends' losses in t.

        Between t = 0 and t = 1, or from the first to the last point where these are none of them.
        Zero where no point lies above it; NaN where a loss is.
        """
        t, loss = self.t.double(), self.loss
        if bool((t == 0).any() and (t == 1).any()):
            inside = (t >= 0) & (t <= 1)
            t, loss = t[inside], loss[inside]
        return float(_above_chord(t, loss).max())

    def summary(self) -> dict[str, dict[str, float]]:
        r"""min, max, mean over t and integral over length, for each metric.

        "mean" is \(\int f(w(t))\, dt\), "integral" \(\int f\, |w'| dt\) over the length, by
        trapezoids; "at" is the t of the maximum.
        """
        metrics: dict[str, Tensor | None] = {"loss": self.loss, "error": self.error}
        metrics |= {"test_loss": self.test_loss, "test_error": self.test_error}
        metrics |= dict(self.metrics)
        out = {}
        for name, values in metrics.items():
            if values is None or not bool(torch.isfinite(values).any()):
                continue
            values, t, s = values.double(), self.t.double(), self.length.double()
            out[name] = {
                "min": float(values.min()),
                "max": float(values.max()),
                "at": math.nan if bool(values.isnan().any()) else float(t[values.argmax()]),
                "mean": float(torch.trapezoid(values, t) / (t[-1] - t[0])),
                "integral": float(torch.trapezoid(values, s)),
            }
        return out


@dataclass(frozen=True, eq=False)
class BarrierResult(Record):
    r"""The barrier between two minima: `float(result)` is its height.

    \(\max_t\, L((1-t) w_0 + t w_1) - [(1-t) L(w_0) + t L(w_1)]\), of the points that were
    evaluated (Frankle et al. 2020).

    Attributes:
        coords: (n,), the points' coordinates along the line, from 0 to 1.
        loss, error: (n,), on the surface's own examples; `error` is a fraction, NaN for regression.
        distance: |w1 - w0|.
        test_loss, test_error: (n,), on the examples of the loader, if one was given.
        batchnorm: the policy of BatchNorm statistics, "none" for models without any. examples: how
            many examples `loss` is over.

    >>> loss = torch.tensor([1.0, 4.0, 2.0])
    >>> barrier = BarrierResult(torch.linspace(0, 1, 3), loss, loss / 10, distance=1.0)
    >>> float(barrier), barrier.t
    (2.5, 0.5)
    """

    figure = "barrier"
    coords: Tensor
    loss: Tensor
    error: Tensor
    distance: float
    test_loss: Tensor | None = None
    test_error: Tensor | None = None
    batchnorm: str = "refresh"
    examples: int = 0

    @property
    def height(self) -> float:
        """Of the loss: zero where no point lies above the chord, NaN where a loss is."""
        return float(_above_chord(self.coords, self.loss).max())

    @property
    def t(self) -> float:
        """Where on the line the loss is farthest above the chord."""
        return float(self.coords[_above_chord(self.coords, self.loss).argmax()])

    @property
    def test_height(self) -> float:
        """The height on the loader's examples; NaN without a loader."""
        values = self.test_loss
        return math.nan if values is None else float(_above_chord(self.coords, values).max())

    def __float__(self) -> float:
        return self.height


def _above_chord(t: Tensor, values: Tensor) -> Tensor:
    """How far values (n,) lie above the straight interpolation of the first and the last in t."""
    t, values = t.double(), values.double()
    return values - torch.lerp(values[0], values[-1], (t - t[0]) / (t[-1] - t[0]))


@dataclass(frozen=True, eq=False)
class SimilarityResult(Record):
    """Similarity of n weight vectors, as weights and as functions: symmetric matrices (n, n).

    Attributes:
        cosine: of the angles between them at the given origin.
        distance: |w_i - w_j|.
        disagreement: the share of examples whose predicted classes differ; None for regression.
        names: of the vectors, where they have some.
        examples: how many examples were predicted.
    """

    figure = "similarity"
    cosine: Tensor
    distance: Tensor
    disagreement: Tensor | None = None
    names: list[str] | None = None
    batchnorm: str = "refresh"
    examples: int = 0


@dataclass(frozen=True, eq=False)
class SurfaceResult(Record):
    """Metrics on a grid of a plane, or of a line where `y` is None; `result.loss` is one of them.

    Attributes:
        x: (n,). y: (m,), or None. Coordinates of the shape that was scanned.
        metrics: {name: (m, n)}, or (n,): "loss", "error", ...; NaN stays NaN.
        evaluated_mask: (m, n) bool, where a network was evaluated; other points are interpolated.
            None: all were.
        marks: points to draw, {name: (2,)} in coordinates. curves: lines, {name: (q, 2)}.
        paths: projected iterates, {name: {"coords": (K, 2), "residual": (K,)}}, the residual being
            the distance from the plane.
        explained_variance_ratio: (2,), the share of the variance along each axis, for a plane of
            principal components.
        batchnorm: the policy of BatchNorm statistics, "none" for models without any.
        examples: the number of examples of the metrics.
        about: other words and numbers to keep. Pictures read "split" (such as "test"),
            "orthonormal" (whether coordinates are distances) and "labels" (names of the axes).
    """

    figure = "surface"
    x: Tensor
    y: Tensor | None
    metrics: dict[str, Tensor]
    evaluated_mask: Tensor | None = None
    marks: dict[str, Tensor] = field(default_factory=dict)
    curves: dict[str, Tensor] = field(default_factory=dict)
    paths: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    explained_variance_ratio: Tensor | None = None
    batchnorm: str = "refresh"
    examples: int = 0
    about: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        metrics = self.__dict__.get("metrics", {})
        if name in metrics:
            return metrics[name]
        raise AttributeError(f"no metric {name!r}; there are {', '.join(metrics)}.")

    @property
    def split(self) -> str:
        """The name of the examples' split, or ""."""
        return str(self.about.get("split", ""))

    @property
    def evaluations(self) -> int:
        """At how many points a network was evaluated."""
        if self.evaluated_mask is not None:
            return int(self.evaluated_mask.sum())
        return len(self.x) * (1 if self.y is None else len(self.y))
