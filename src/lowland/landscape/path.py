"""Loss and error along a curve."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lowland.core import LossSurface
from lowland.errors import ConfigError, NonFiniteError
from lowland.evaluate.evaluator import run
from lowland.evaluate.table import EachPoint
from lowland.geometry import Curve
from lowland.progress import Progress
from lowland.records import PathResult, Table


def path(
    curve: Curve,
    surface: LossSurface,
    *,
    points: int = 61,
    loader: Iterable[Any] | None = None,
    t: Any = None,
    batchnorm: str = "refresh",
    count: int | None = None,
    strategy: str | None = None,
    chunk: int | None = None,
    progress: Progress = False,
) -> PathResult:
    r"""\(L(w(t))\) and the error at points of a curve (Garipov et al. 2018, figures 2 and 3).

    Losses that are not finite stay so. The statistics of BatchNorm layers are estimated once a
    point, for the surface's rows and the loader's alike.

    Args:
        curve: a `Line`, `Bezier`, `PolyChain`. points: how many, evenly in t from end to end.
        loader: further rows, such as the test set's, for `test_loss` and `test_error`.
        t: coordinates of your own in rising order, instead of `points`; outside [0, 1] they extend
            the curve.
        count: rows to read of the surface's loader, and of `loader`.
        batchnorm, strategy, chunk, progress: see `predict`.

    Raises:
        ConfigError: a shape that is no curve, fewer than two points. LayoutError: a curve of
            another model. NonFiniteError: not one finite loss.

    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> from lowland.geometry import Line
    >>> rows = [(torch.ones(1, 1), torch.zeros(1, 1))]
    >>> surface = LossSurface(nn.Linear(1, 1, bias=False), Regression(noise_variance=1.0), rows)
    >>> found = path(Line(torch.tensor([-1.0]), torch.tensor([1.0])), surface, points=3)
    >>> (found.loss - found.loss[1]).tolist(), found.length.tolist()  # w² / 2
    ([0.5, 0.0, 0.5], [0.0, 1.0, 2.0])
    """
    if not isinstance(curve, Curve):
        raise ConfigError(
            f"curve: expected a Line, Bezier, PolyChain or another Curve, got "
            f"{type(curve).__name__}; ll.scan draws planes."
        )
    surface.layout.check(curve.anchors)
    at = _coordinates(points, t)
    own, other = EachPoint(surface.task), EachPoint(surface.task)
    data = run(
        surface,
        curve.points(at),
        None,
        own,
        also=[] if loader is None else [(loader, other)],
        total=len(at),
        batchnorm=batchnorm,
        strategy=strategy,
        chunk=chunk,
        count=count,
        progress=progress,
        label="path",
    )
    columns = dict(Table.from_rows(own.rows).columns)
    columns |= {f"test_{k}": values for k, values in Table.from_rows(other.rows).columns.items()}
    if not bool(torch.isfinite(columns["loss"]).any()):
        raise NonFiniteError(
            f"the loss is NaN or infinite at all {len(at)} points of the curve; evaluate its ends "
            "by surface(w), and look at the runs that they come from."
        )
    kept = ("loss", "error", "accuracy")  # in fields of their own; accuracy is 1 - error
    nothing = torch.full_like(columns["loss"], torch.nan)
    return PathResult(
        at,
        columns["loss"],
        columns.get("error", nothing),
        *_norms(curve, at),
        length=curve.length_to(at),
        test_loss=columns.get("test_loss"),
        test_error=columns.get("test_error", None if loader is None else nothing),
        figures={k: v for k, v in columns.items() if k.removeprefix("test_") not in kept},
        batchnorm=batchnorm if surface.has_batchnorm else "none",
        rows=data.rows or 0,
        outside=bool((at < 0).any() or (at > 1).any()),
    )


def _coordinates(points: int, t: Any) -> Tensor:  # (n,) float64
    if t is None:
        if points < 2:
            raise ConfigError(f"points: expected at least 2, got {points}.")
        return torch.linspace(0, 1, points, dtype=torch.float64)
    at = torch.as_tensor(t, dtype=torch.float64).detach().cpu().reshape(-1)
    if len(at) < 2 or not bool((at[1:] > at[:-1]).all()) or not bool(torch.isfinite(at).all()):
        raise ConfigError(
            f"t: expected at least 2 coordinates in rising order, got {at.tolist()[:5]}."
        )
    return at


def _norms(curve: Curve, t: Tensor) -> tuple[Tensor, Tensor]:
    """|w(t)| and |w(t) - w(0)|, (n,) each, from the anchors' inner products alone."""
    c = curve.coefficients(torch.cat([torch.zeros(1).to(t), t])[:, None].to(curve.device))
    gram = curve.gram()

    def norm(rows: Tensor) -> Tensor:
        return torch.einsum("na,ab,nb->n", rows, gram, rows).clamp_min(0).sqrt().cpu()

    return norm(c[1:]), norm(c[1:] - c[:1])
