"""The loss surface over a plane or along a line, point by point."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from torch import Tensor

from lowland.core import LossSurface, Point
from lowland.core.options import EvalKeywords, Plan
from lowland.files import PathLike
from lowland.geometry import Curve, Shape
from lowland.landscape.figures import Metrics
from lowland.landscape.job import Job, ScanOptions
from lowland.progress import Progress
from lowland.records import SurfaceResult


def scan(
    shape: Shape,
    surface: LossSurface,
    *,
    resolution: int | Sequence[int] = 41,
    margin: float = 0.2,
    bounds: Any = None,
    loader: Iterable[Any] | None = None,
    metrics: Metrics | None = None,
    together: Sequence[Tensor | Point] | None = None,
    refine: bool | float | None = None,
    store: PathLike | None = None,
    marks: Sequence[str] | Mapping[str, Any] | None = None,
    curves: Mapping[str, Curve] | None = None,
    paths: Mapping[str, Any] | None = None,
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> SurfaceResult:
    r"""\(L(w(x, y))\) on a grid of a plane, or L(w(t)) along a line (Goodfellow et al. 2015).

    Weights are made from the shape's anchors one point at a time, or a chunk at a time where the
    network is so small that points are evaluated together; they are never held for the grid.

    Args:
        shape: any of two coordinates, such as `Plane.through(a, b, c)`, `Plane(w, *directions)`,
            `traj.pca(rank=2)`, or of one, such as `Line(w0, w1)`.
        resolution: points along each axis, or (n, m): n along x, m along y.
        margin: how much wider than the marks of a plane, or the projected `paths`, the grid is, to
            each side. bounds: ((x0, x1), (y0, y1)), or (t0, t1), instead. Without marks and paths
            it is [-1, 1] along each axis; of curves [0, 1].
        loader: None: the surface's own rows.
        metrics: "loss", "error" (or "rmse"), "nll", "ece", "brier", all that `evaluate` gives,
            "gradient_norm" (of the surface's own rows), or functions of (surface, point) that give
            {name: number}. None: loss, and error or rmse.
        together: fixed weights: adds "nll_together" and "error_together" of the average of their
            probabilities and the point's.
        refine: True, or what the colours of the first figure may be off by (0.02 of the scale): a
            coarse grid is evaluated, then where interpolation would be wrong. The rest is
            interpolated, see `known` of the record; NaN never is.
        store: a file that a scan writes every chunk to, and continues from if it is there: a scan
            that was stopped ends with the same values bit by bit.
        marks: names for the plane's marks (w0, w1, ...), or weights by name, to be projected.
        curves: curves to draw, by name. paths: iterates to project, such as a `Trajectory`.
            More can be drawn over the record afterwards: see `overlay`.
        progress, options: as for `predict`; `batchnorm="frozen"` as for `path`.

    Raises:
        ConfigError: a resolution of 1, a shape of more coordinates, a file of another scan, frozen
            statistics for a shape through points that have their own.
        NonFiniteError: no point has a finite loss.

    >>> import torch
    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> from lowland.geometry import Plane
    >>> net, rows = nn.Linear(2, 1, bias=False), [(torch.eye(2), torch.zeros(2, 1))]
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), rows)
    >>> found = scan(Plane(torch.zeros(2), *torch.eye(2)), surface, resolution=(3, 2))
    >>> found.loss - found.loss.min()  # (x² + y²) / 4, at x = -1, 0, 1 and y = -1, 1
    tensor([[0.2500, 0.0000, 0.2500],
            [0.2500, 0.0000, 0.2500]], dtype=torch.float64)
    """
    what = ScanOptions(
        resolution=resolution,
        margin=margin,
        bounds=bounds,
        loader=loader,
        metrics=metrics,
        together=together,
        refine=refine,
        marks=marks,
        curves=curves,
        paths=paths,
    )
    job = Job(shape, surface, what, surface.options.override(**options))
    return job.result(store, progress)


@dataclass(frozen=True)
class Forecast:
    """What a scan will take.

    Attributes:
        points: at most; a refined scan ends earlier. least: of a refined scan, what it begins
            with. seconds: for all points. plan: how they will be evaluated.
    """

    points: int
    least: int
    seconds: float
    plan: Plan

    def __str__(self) -> str:
        some = f"{self.least} to {self.points}" if self.least < self.points else f"{self.points}"
        return f"{some} points, {self.seconds / self.points:.2g} s each, {self.seconds:.0f} s"


def forecast(shape: Shape, surface: LossSurface, **options: Any) -> Forecast:
    """How many points a scan with these options takes, and for how long, by a few of them.

    Args:
        options: as of `scan`.

    >>> import torch
    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> from lowland.geometry import Plane
    >>> net, rows = nn.Linear(2, 1, bias=False), [(torch.eye(2), torch.zeros(2, 1))]
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), rows)
    >>> found = forecast(Plane(torch.zeros(2), *torch.eye(2)), surface, resolution=41, refine=True)
    >>> found.points, found.least
    (1681, 124)
    """
    for name in ("store", "progress"):  # nothing is written or drawn for a forecast
        options.pop(name, None)
    how: Any = {name: options.pop(name) for name in EvalKeywords.__annotations__ if name in options}
    job = Job(shape, surface, ScanOptions(**options), surface.options.override(**how))
    plan = job.plan()
    some = list(range(min(plan.chunk, job.points)))
    seconds = float("inf")
    for _ in range(2):  # the first warms up
        start = time.perf_counter()
        job.evaluate(some, plan)
        seconds = min(seconds, time.perf_counter() - start)
    return Forecast(job.points, len(job.start()), seconds / len(some) * job.points, plan)
