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
from lowland.landscape.grid_scan import GridScan, ScanOptions
from lowland.landscape.point_metrics import Metrics
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

    Weights are computed from the shape's anchors a point at a time, or a chunk at a time for small
    networks; they are never held for the whole grid.

    Args:
        shape: a shape of two coordinates, such as `Plane.through(a, b, c)`, `traj.pca(rank=2)`,
            `Plane(w, *directions)`, or of one coordinate, such as `Line(w0, w1)`.
        resolution: points along each axis, or (n, m): n along x, m along y.
        margin: how far the grid extends beyond the marks of a plane, or the projected `paths`, to
            each side, as a share of their extent. bounds: ((x0, x1), (y0, y1)), or (t0, t1),
            instead. Without marks and paths: [-1, 1] along each axis, for curves [0, 1].
        loader: None: the surface's own examples.
        metrics: "loss", "error" (or "rmse"), "nll", "ece", "brier", any metric of `evaluate`,
            "gradient_norm" (over the surface's own examples), or functions of (surface, point)
            that return {name: number}. None: loss, and error or rmse.
        together: fixed weights: adds "nll_together" and "error_together", the metrics of the mean
            of their probabilities and the point's.
        refine: True, or the tolerance for colours of the first metric (0.02 of the scale): a coarse
            grid is evaluated first, then the points where interpolation would be wrong. The others
            are interpolated, but never across NaN: see `evaluated_mask` of the record.
        store: a file to which every chunk is written; an existing one is continued, to the same
            values bit by bit.
        marks: names of the plane's marks (w0, w1, ...), or weights by name, to be projected.
        curves: curves to draw, by name. paths: iterates to project, such as a `Trajectory`.
            `overlay` draws more over a finished record.
        progress, options: as for `predict`; `batchnorm="frozen"` as for `path`.

    Raises:
        ConfigError: a resolution of 1, a shape of more coordinates, a file of another scan, frozen
            statistics for a shape through points that have their own.
        NonFiniteError: no point has a finite loss.

    >>> import torch
    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> from lowland.geometry import Plane
    >>> net, data = nn.Linear(2, 1, bias=False), [(torch.eye(2), torch.zeros(2, 1))]
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), data)
    >>> result = scan(Plane(torch.zeros(2), *torch.eye(2)), surface, resolution=(3, 2))
    >>> result.loss - result.loss.min()  # (x² + y²) / 4, at x = -1, 0, 1 and y = -1, 1
    tensor([[0.2500, 0.0000, 0.2500],
            [0.2500, 0.0000, 0.2500]], dtype=torch.float64)
    """
    scan_options = ScanOptions(
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
    grid_scan = GridScan(shape, surface, scan_options, surface.options.override(**options))
    return grid_scan.result(store, progress)


@dataclass(frozen=True)
class Forecast:
    """The points and the time that a scan will take.

    Attributes:
        points: the number of points; a refined scan evaluates fewer. least: the number of points
            that a refined scan evaluates first. seconds: for all points. plan: how points will be
            evaluated.
    """

    points: int
    least: int
    seconds: float
    plan: Plan

    def __str__(self) -> str:
        count = f"{self.least} to {self.points}" if self.least < self.points else f"{self.points}"
        return f"{count} points, {self.seconds / self.points:.2g} s each, {self.seconds:.0f} s"


def forecast(shape: Shape, surface: LossSurface, **options: Any) -> Forecast:
    """The points and the time that `scan` with these options takes, from a timing of one chunk.

    Args:
        options: as of `scan`.

    >>> import torch
    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> from lowland.geometry import Plane
    >>> net, data = nn.Linear(2, 1, bias=False), [(torch.eye(2), torch.zeros(2, 1))]
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), data)
    >>> plane = Plane(torch.zeros(2), *torch.eye(2))
    >>> result = forecast(plane, surface, resolution=41, refine=True)
    >>> result.points, result.least
    (1681, 124)
    """
    for name in ("store", "progress"):  # these do not change a forecast
        options.pop(name, None)
    eval_options: Any = {
        name: options.pop(name) for name in EvalKeywords.__annotations__ if name in options
    }
    grid_scan = GridScan(
        shape, surface, ScanOptions(**options), surface.options.override(**eval_options)
    )
    plan = grid_scan.plan()
    indices = list(range(min(plan.chunk, grid_scan.points)))
    seconds = float("inf")
    for _ in range(2):  # the first warms up
        start = time.perf_counter()
        grid_scan.evaluate(indices, plan)
        seconds = min(seconds, time.perf_counter() - start)
    total = seconds / len(indices) * grid_scan.points
    return Forecast(grid_scan.points, len(grid_scan.initial_points()), total, plan)
