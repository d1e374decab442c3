"""The points of a scan: a grid of coordinates, and what is drawn over it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lowland import checks
from lowland.core.layout import inner
from lowland.core.point import Point
from lowland.errors import ConfigError
from lowland.geometry import Affine, Curve, Shape

CURVE_POINTS = 201
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


# -- what is drawn over it -------------------------------------------------------------------------


def marks_of(shape: Shape, names: Sequence[str] | Mapping[str, Any] | None) -> dict[str, Tensor]:
    """Points to draw, {name: (k,)}: the shape's own, or weights that are projected onto it."""
    if isinstance(names, Mapping):
        return {name: shape.coords_of(w)[0].cpu() for name, w in names.items()}
    if isinstance(shape, Curve):
        found = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    else:
        found = getattr(shape, "marks", torch.zeros(0, shape.k))
    if names is None:
        names = [f"w{i}" for i in range(len(found))]
    if len(names) != len(found):
        raise ConfigError(
            f"marks: expected {len(found)} names, one a mark of the shape, or weights by name; got "
            f"{', '.join(names)}."
        )
    return dict(zip(names, found.cpu(), strict=True))


def curve_on(shape: Shape, curve: Curve, *, points: int = CURVE_POINTS) -> tuple[Tensor, float]:
    r"""A curve projected onto a flat shape, (points or more, k), and how far it leaves it at most.

    Projection is affine and a curve's coefficients sum to one, so those of its anchors are enough:
    \(z(t) = c(t) \cdot z(A)\), whatever the number of points. Knots are points of their own, so
    that no corner is cut.
    """
    coords, rest = [], []
    for anchor in curve.anchors:
        z, _ = shape.coords_of(anchor)
        coords.append(z.cpu())
        rest.append(anchor - shape(z[None])[0])
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    t = torch.cat([t, torch.tensor(curve.breaks, dtype=torch.float64)]).unique()[:, None]
    c = curve.coefficients(t.to(curve.device)).cpu()  # (points, A)
    apart = torch.stack(rest)
    gram = inner(apart, apart).cpu()
    far = torch.einsum("na,ab,nb->n", c, gram, c).clamp_min(0).sqrt()
    return c @ torch.stack(coords), float(far.max())


def path_on(shape: Shape, iterates: Any) -> dict[str, Tensor]:
    """Iterates projected onto a shape, one at a time: "coords" (K, k) and "residual" (K,)."""
    found = [shape.coords_of(w.weights if isinstance(w, Point) else w) for w in _in_turn(iterates)]
    if not found:
        raise ConfigError("paths: expected iterates to project, got none.")
    coords, far = zip(*found, strict=True)
    return {"coords": torch.stack(coords).cpu(), "residual": torch.stack(far).cpu()}


def _in_turn(iterates: Any) -> Iterable[Any]:
    if hasattr(iterates, "__getitem__") and hasattr(iterates, "__len__"):
        return (iterates[i] for i in range(len(iterates)))
    return iter(iterates)


def explained_by(shape: Shape, path: dict[str, Tensor]) -> Tensor | None:
    """The share of a path's variance along each axis, (k,); None unless the centre is its mean.

    The squared distance from the centre is that in the shape, for directions at right angles a sum
    over them, and the square of the residual.
    """
    if not isinstance(shape, Affine) or len(path["coords"]) < 2:
        return None
    z, gram = path["coords"], inner(shape.basis, shape.basis).cpu()
    spread = z.std(0)
    norms = gram.diagonal().sqrt()
    if bool((z.mean(0).abs() > 1e-2 * spread).any()) or bool(
        ((gram / norms / norms[:, None]).fill_diagonal_(0).abs() > 1e-3).any()
    ):
        return None
    along = z.square().sum(0) * gram.diagonal()
    return along / (along.sum() + path["residual"].square().sum())
