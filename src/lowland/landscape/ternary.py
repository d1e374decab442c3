"""The loss surface over a simplex of three vertices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from lowland import checks
from lowland.core import LossSurface
from lowland.core.inner import inner
from lowland.core.options import EvalKeywords
from lowland.errors import ConfigError, NonFiniteError
from lowland.evaluate.batchnorm_statistics import require_statistics
from lowland.geometry import Barycentric, Shape
from lowland.landscape.journal import Journal
from lowland.landscape.point_metrics import Metrics, PointMetrics
from lowland.landscape.point_scan import PointScan
from lowland.progress import Progress
from lowland.records import Table, TernaryResult


def ternary(
    simplex: Shape,
    surface: LossSurface,
    *,
    resolution: int = 15,
    loader: Iterable[Any] | None = None,
    metrics: Metrics | None = None,
    names: Sequence[str] | None = None,
    split: str = "",
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> TernaryResult:
    r"""\(L(c_0 w_0 + c_1 w_1 + c_2 w_2)\) over the triangle of three vertices (Benton et al. 2021).

    On an even barycentric grid: \(c = (i, j, r - 1 - i - j) / (r - 1)\), r (r + 1) / 2 points for a
    `resolution` of r, the vertices among them. Weights are computed as they are needed and
    never held for the grid.

    Args:
        simplex: three vertices; its coordinates are their shares and sum to one.
        resolution: points along each side.
        loader: None: the surface's own examples. split: their name in pictures, such as "test".
        metrics: see `scan`. names: the vertices' names; None: w0, w1, w2.
        progress, options: as for `predict`.

    Raises:
        ConfigError: a shape without exactly three vertices, a resolution of 1. LayoutError: a shape
            of another model. NonFiniteError: no point has a finite loss.

    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> from lowland.geometry import Simplex
    >>> net, data = nn.Linear(2, 1, bias=False), [(torch.eye(2), torch.zeros(2, 1))]
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), data)
    >>> triangle = Simplex(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]]))
    >>> result = ternary(triangle, surface, resolution=2)
    >>> result.loss - result.loss.min(), result.lengths  # |w|² / 4
    (tensor([0., 1., 1.], dtype=torch.float64),
     tensor([2.0000, 2.8284, 2.0000], dtype=torch.float64))
    """
    _check(simplex, names)
    resolution = checks.whole("resolution", resolution, least=2, most=10_000)
    surface.layout.check(simplex.anchors)
    eval_options = surface.options.override(**options)
    require_statistics(simplex, surface, eval_options)
    point_metrics = PointMetrics(surface, metrics, eval_options)
    if not (point_metrics.names or point_metrics.functions):
        raise ConfigError("metrics: expected at least one metric, got none.")
    coords = barycentric_grid(resolution)
    data = surface.replayable(loader, count=eval_options.count).cached()
    scan = PointScan(
        simplex,
        surface,
        coords,
        [(data, point_metrics.sink())],
        eval_options,
        row=lambda parts, point: point_metrics(parts[0], point),
    )
    scan.run(Journal(None, {}), scan.plan(), progress=progress, label="ternary")
    metric_columns = Table.from_rows([scan.rows[i] for i in range(len(coords))]).columns
    if not any(bool(torch.isfinite(values).any()) for values in metric_columns.values()):
        raise NonFiniteError(
            f"none of the {len(coords)} points has a finite {next(iter(metric_columns))}; "
            "check the runs that trained the vertices."
        )
    sides = simplex.anchors.roll(-1, 0) - simplex.anchors  # the sides: 0 to 1, 1 to 2, 2 to 0
    return TernaryResult(
        coords,
        metric_columns,
        names=[f"w{i}" for i in range(3)] if names is None else list(map(str, names)),
        lengths=inner(sides, sides).diagonal().clamp_min(0).sqrt().cpu(),
        split=split,
        examples=data.num_examples or 0,
        batchnorm=eval_options.batchnorm if surface.has_batchnorm else "none",
    )


def barycentric_grid(resolution: int) -> Tensor:  # -> (r (r + 1) / 2, 3)
    """Even shares of three vertices, from the first vertex on.

    >>> barycentric_grid(2)
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]], dtype=torch.float64)
    """
    steps = resolution - 1
    shares = [(i, j, steps - i - j) for i in range(steps, -1, -1) for j in range(steps - i, -1, -1)]
    return torch.tensor(shares, dtype=torch.float64) / steps


def _check(simplex: Shape, names: Sequence[str] | None) -> None:
    """Raises `ConfigError` for other shapes than triangles."""
    if not isinstance(simplex, Shape):
        raise ConfigError(
            f"simplex: expected a Simplex of 3 vertices, got {type(simplex).__name__}."
        )
    if simplex.k != 3 or len(simplex.anchors) != 3:
        raise ConfigError(
            f"simplex: expected 3 vertices and their 3 shares as coordinates, got a "
            f"{type(simplex).__name__} of {len(simplex.anchors)} anchors and {simplex.k} "
            "coordinates; take a simplex of three of its vertices, or ll.scan for a plane."
        )
    if isinstance(simplex, Barycentric) and len(simplex.cells) > 1:
        raise ConfigError(
            f"simplex: a {type(simplex).__name__} of {len(simplex.cells)} simplexes is no "
            "triangle; take ll.Simplex(complex.anchors[...]) of one, or ll.scan for the plane."
        )
    if names is not None and len(names) != 3:
        raise ConfigError(
            f"names: expected 3, one a vertex, got {len(names)}: {', '.join(map(str, names))}."
        )
