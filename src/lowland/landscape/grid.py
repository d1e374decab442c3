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

_SNAP = 1e-9  # of a step: a coordinate that is nearer to a mark than this is the mark's


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
        """(m, n), or (n,): of figures on this grid."""
        return (len(self.x),) if self.y is None else (len(self.y), len(self.x))

    @property
    def coords(self) -> Tensor:
        """Of all points, (m n, 2) or (n, 1)."""
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
    """The grid over `bounds`, or over the box of what the shape and the paths have in them.

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
    many = list(resolution) if isinstance(resolution, Sequence) else [resolution] * k
    if len(many) != k:
        raise ConfigError(
            f"resolution: expected one number or {k}, one a coordinate, got {resolution}."
        )
    return [checks.whole("resolution", n, least=2, most=100_000) for n in many]


def _ends(shape: Shape, margin: float, bounds: Any, around: list[Tensor]) -> list[Any]:
    margin = checks.number("margin", margin, above=-0.5)
    if bounds is not None:
        given = torch.as_tensor(bounds, dtype=torch.float64).reshape(-1, 2)
        if given.shape != (shape.k, 2) or not bool((given[:, 0] < given[:, 1]).all()):
            form = "((x0, x1), (y0, y1))" if shape.k == 2 else "(t0, t1)"
            raise ConfigError(f"bounds: expected {form} with x0 < x1, got {bounds}.")
        return [tuple(end) for end in given.tolist()]
    if isinstance(shape, Curve):
        return [(0.0, 1.0)]
    marks = getattr(shape, "marks", None)
    if isinstance(marks, Tensor) and len(marks) > 1:
        return list(shape.box(margin))  # type: ignore[attr-defined]
    if around:
        every = torch.cat([*around, torch.zeros(1, shape.k, dtype=torch.float64)])
        low, high = every.min(0).values, every.max(0).values
        more = margin * (high - low)
        more = torch.where(high > low, more, 1.0)  # a path that does not move along an axis
        return list(zip((low - more).tolist(), (high + more).tolist(), strict=True))
    return [(-1.0, 1.0)] * shape.k


def _axis(low: float, high: float, n: int, exact: Tensor) -> Tensor:
    """n even steps; where a step falls on a value of `exact` it is that value, bit by bit."""
    axis = torch.linspace(low, high, n, dtype=torch.float64)
    for value in exact:
        axis[(axis - value).abs() < _SNAP * (high - low) / (n - 1)] = value
    return axis
