"""Points, curves and iterates over the picture of a scan, projected onto its shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lowland.core.inner import inner
from lowland.core.point import Point
from lowland.errors import ConfigError
from lowland.geometry import Affine, Curve, Shape
from lowland.records import SurfaceResult

CURVE_POINTS = 201


def overlay(
    result: SurfaceResult,
    shape: Shape,
    *,
    marks: Mapping[str, Any] | None = None,
    curves: Mapping[str, Curve] | None = None,
    paths: Mapping[str, Any] | None = None,
) -> SurfaceResult:
    r"""Adds points, curves and iterates to the record of a scan; nothing is evaluated.

    Weights w are drawn at the coordinates of the nearest point of the shape, of a plane
    \(z = (B B^T)^{-1} B (w - w_0)\), and are added to those of the record, by name.

    Args:
        result: a record of `scan`. shape: the shape of the scan.
        marks: weights (P,) by name. curves: curves by name, for planes and subspaces.
        paths: iterates by name, such as a `Trajectory`, or an iterable of (P,).

    Raises:
        ConfigError: curves on a shape that is not flat, an empty path. LayoutError: weights of
            another model.

    >>> from lowland.geometry import Plane
    >>> plane, x = Plane(torch.zeros(3), *torch.eye(3)[:2]), torch.linspace(-1, 1, 3)
    >>> result = SurfaceResult(x, x, {"loss": torch.zeros(3, 3)})
    >>> overlay(result, plane, marks={"SWA": torch.tensor([0.5, -1.0, 7.0])}).marks
    {'SWA': tensor([ 0.5000, -1.0000], dtype=torch.float64)}
    """
    return Overlays.on(shape, marks or {}, curves, paths).over(result)


@dataclass(frozen=True)
class Overlays:
    """Points, curves and iterates in coordinates of a shape (k,).

    Attributes:
        marks: {name: (k,)}. curves: {name: (q, k)}. off: each curve's distance.
        paths: {name: {"coords": (K, k), "residual": (K,)}}.
        explained_variance_ratio: (k,), see `explained_by`.
    """

    marks: dict[str, Tensor]
    curves: dict[str, Tensor]
    off: dict[str, float]
    paths: dict[str, dict[str, Tensor]]
    explained_variance_ratio: Tensor | None

    @classmethod
    def on(
        cls,
        shape: Shape,
        marks: Sequence[str] | Mapping[str, Any] | None,
        curves: Mapping[str, Curve] | None,
        paths: Mapping[str, Any] | None,
    ) -> Overlays:
        """Projects onto a shape; marks of None, or names alone, are the shape's own."""
        if curves and not isinstance(shape, Affine):
            raise ConfigError(
                "curves: expected a plane or subspace to draw them on, not along a curve."
            )
        iterates = {name: path_on(shape, path) for name, path in (paths or {}).items()}
        lines = {name: curve_on(shape, curve) for name, curve in (curves or {}).items()}
        shares = (explained_by(shape, path) for path in iterates.values())
        return cls(
            marks_of(shape, marks),
            {name: z for name, (z, _) in lines.items()},
            {name: far for name, (_, far) in lines.items()},
            iterates,
            next((share for share in shares if share is not None), None),
        )

    def over(self, result: SurfaceResult) -> SurfaceResult:
        """The record with these added."""
        about = dict(result.about)
        if self.off:
            about["off"] = about.get("off", {}) | self.off
        ratio = self.explained_variance_ratio
        if ratio is None:
            ratio = result.explained_variance_ratio
        return replace(
            result,
            marks=result.marks | self.marks,
            curves=result.curves | self.curves,
            paths=result.paths | self.paths,
            explained_variance_ratio=ratio,
            about=about,
        )


def marks_of(shape: Shape, names: Sequence[str] | Mapping[str, Any] | None) -> dict[str, Tensor]:
    """Marks by name, (k,): the shape's own, or the projections of weights."""
    if isinstance(names, Mapping):
        return {name: shape.coords_of(w)[0].cpu() for name, w in names.items()}
    if isinstance(shape, Curve):
        marks = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    else:
        marks = getattr(shape, "marks", torch.zeros(0, shape.k))
    if names is None:
        names = [f"w{i}" for i in range(len(marks))]
    if len(names) != len(marks):
        raise ConfigError(
            f"marks: expected {len(marks)} names, one for each mark, or weights by name; "
            f"got {', '.join(names)}."
        )
    return dict(zip(names, marks.cpu(), strict=True))


def curve_on(shape: Shape, curve: Curve, *, points: int = CURVE_POINTS) -> tuple[Tensor, float]:
    r"""A curve projected onto a flat shape, (points or more, k), and its largest distance from it.

    Projection is affine and a curve's coefficients sum to one, so that \(z(t) = c(t) \cdot z(A)\):
    only anchors are projected. Knots are among the points, so that no corner is cut.
    """
    coords, residuals = [], []
    for anchor in curve.anchors:
        z, _ = shape.coords_of(anchor)
        coords.append(z.cpu())
        residuals.append(anchor - shape(z[None])[0])
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    t = torch.cat([t, torch.tensor(curve.breaks, dtype=torch.float64)]).unique()[:, None]
    c = curve.coefficients(t.to(curve.device)).cpu()  # (points, A)
    residual = torch.stack(residuals)
    gram = inner(residual, residual).cpu()
    far = torch.einsum("na,ab,nb->n", c, gram, c).clamp_min(0).sqrt()
    return c @ torch.stack(coords), float(far.max())


def path_on(shape: Shape, iterates: Any) -> dict[str, Tensor]:
    """Iterates projected onto a shape, one at a time: "coords" (K, k) and "residual" (K,)."""
    projections = [
        shape.coords_of(w.weights if isinstance(w, Point) else w) for w in _iterate(iterates)
    ]
    if not projections:
        raise ConfigError("paths: expected iterates to project, got none.")
    coords, residual = zip(*projections, strict=True)
    return {"coords": torch.stack(coords).cpu(), "residual": torch.stack(residual).cpu()}


def _iterate(iterates: Any) -> Iterator[Any]:
    if hasattr(iterates, "__getitem__") and hasattr(iterates, "__len__"):
        yield from (iterates[i] for i in range(len(iterates)))
    else:
        yield from iterates


def explained_by(shape: Shape, path: dict[str, Tensor]) -> Tensor | None:
    """The share of a path's variance along each axis, (k,), for a shape around the path's mean with
    orthogonal directions; otherwise None.

    The squared distance from the centre is the sum of squares along the axes and of the residual.
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
