"""The points of a scan: a grid of coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lowland import checks
from lowland.errors import ConfigError
from lowland.geometry import Curve, Shape

_SNAP = 1e-9  # of a step: a coordinate this near to a mark takes the mark's value


@dataclass(frozen=True)
class Grid:
    """Coordinates along the axes, float64: x (n,), and y (m,) or None for a line.

    Points are numbered row by row: point j n + i lies at (x_i, y_j).

    >>> Grid(torch.tensor([0.0, 1.0]), torch.tensor([5.0, 6.0, 7.0])).coords[:3]
    tensor([[0., 5.],
            [1., 5.],
            [0., 6.]])
    """

    x: Tensor
    y: Tensor | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of metrics on this grid, (m, n) or (n,)."""
        return (len(self.x),) if self.y is None else (len(self.y), len(self.x))

    @property
    def coords(self) -> Tensor:
        """The coordinates of all points, (m n, 2) or (n, 1)."""
        if self.y is None:
            return self.x[:, None]
        across, up = len(self.x), len(self.y)
        return torch.stack([self.x.repeat(up), self.y.repeat_interleave(across)], dim=1)


def grid_of(
    shape: Shape,
    *,
    resolution: int | Sequence[int],
    margin: float,
    bounds: Any,
    around: Iterable[Tensor],
) -> Grid:
    """The grid over `bounds`, or over the box of the shape's marks or the paths.

    Args:
        around: coordinates of projected paths, (K, k) each.
    """
    if shape.k not in (1, 2):
        raise ConfigError(
            f"scan: expected a shape of one or two coordinates, got {shape.k}; take the plane of "
            "two of its directions, such as ll.Plane(w, u, v)."
        )
    sizes = _sizes(resolution, shape.k)
    ends = _ends(shape, margin, bounds, list(around))
    exact = torch.zeros(1, shape.k, dtype=torch.float64)
    if isinstance(shape, Curve):
        exact = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    elif isinstance(getattr(shape, "marks", None), Tensor):
        exact = torch.cat([exact, shape.marks.cpu()])  # type: ignore[attr-defined]
    axes = [
        _axis(low, high, n, exact[:, i])
        for i, ((low, high), n) in enumerate(zip(ends, sizes, strict=True))
    ]
    return Grid(axes[0], axes[1] if shape.k == 2 else None)


def _sizes(resolution: int | Sequence[int], k: int) -> list[int]:
    sizes = list(resolution) if isinstance(resolution, Sequence) else [resolution] * k
    if len(sizes) != k:
        raise ConfigError(
            f"resolution: expected one number or {k}, one for each coordinate, got {resolution}."
        )
    return [checks.whole("resolution", n, least=2, most=100_000) for n in sizes]


def _ends(shape: Shape, margin: float, bounds: Any, around: list[Tensor]) -> list[Any]:
    margin = checks.number("margin", margin, above=-0.5)
    if bounds is not None:
        ends = torch.as_tensor(bounds, dtype=torch.float64).reshape(-1, 2)
        if ends.shape != (shape.k, 2) or not bool((ends[:, 0] < ends[:, 1]).all()):
            form = "((x0, x1), (y0, y1))" if shape.k == 2 else "(t0, t1)"
            raise ConfigError(f"bounds: expected {form} with x0 < x1, got {bounds}.")
        return [tuple(end) for end in ends.tolist()]
    if isinstance(shape, Curve):
        return [(0.0, 1.0)]
    marks = getattr(shape, "marks", None)
    if isinstance(marks, Tensor) and len(marks) > 1:
        return list(shape.box(margin))  # type: ignore[attr-defined]
    if around:
        points = torch.cat([*around, torch.zeros(1, shape.k, dtype=torch.float64)])
        low, high = points.min(0).values, points.max(0).values
        border = margin * (high - low)
        border = torch.where(high > low, border, 1.0)  # a path may be constant along an axis
        return list(zip((low - border).tolist(), (high + border).tolist(), strict=True))
    return [(-1.0, 1.0)] * shape.k


def _axis(low: float, high: float, n: int, exact: Tensor) -> Tensor:
    """n even values, of which those at values of `exact` equal them bit by bit."""
    axis = torch.linspace(low, high, n, dtype=torch.float64)
    for value in exact:
        axis[(axis - value).abs() < _SNAP * (high - low) / (n - 1)] = value
    return axis
