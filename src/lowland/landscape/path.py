"""Loss and error along a curve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor

from lowland import checks
from lowland.core import LossSurface
from lowland.core.options import EvalKeywords
from lowland.errors import ConfigError, NonFiniteError
from lowland.evaluate.batchnorm_statistics import require_statistics
from lowland.evaluate.engine import replayable_loader
from lowland.evaluate.fingerprint import evaluation_fingerprint
from lowland.files import PathLike
from lowland.geometry import Curve
from lowland.landscape.figures import Row, Whole
from lowland.landscape.ledger import Ledger
from lowland.landscape.points import PointScan
from lowland.progress import Progress
from lowland.records import PathResult, Table


def path(
    curve: Curve,
    surface: LossSurface,
    *,
    points: int = 61,
    loader: Iterable[Any] | None = None,
    t: Any = None,
    test_count: int | None = None,
    store: PathLike | None = None,
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> PathResult:
    r"""\(L(w(t))\) and the error at points of a curve (Garipov et al. 2018, figures 2 and 3).

    Losses that are not finite stay so. The statistics of BatchNorm layers are estimated once a
    point, for the surface's rows and the loader's alike.

    Args:
        curve: a `Line`, `Bezier`, `PolyChain`. points: how many, evenly in t from end to end.
        loader: further rows, such as the test set's, for `test_loss` and `test_error`.
        t: coordinates of your own in rising order, instead of `points`; outside [0, 1] they extend
            the curve.
        test_count: rows to read of `loader`; None: all. `count=` says it of the surface's own.
        store: a file that every chunk of points is written to, and that is gone on with if it is
            there, to the same values bit by bit; see `scan`.
        progress, options: as for `predict`. `batchnorm="frozen"` takes the model's statistics at
            all points, and is refused where the curve's ends came with their own.

    Raises:
        ConfigError: a shape that is no curve, fewer than two points, a file of another path, frozen
            statistics of ends that have their own. LayoutError: a curve of another model.
        NonFiniteError: not one finite loss.

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
    how = surface.options.override(**options)
    require_statistics(curve, surface, how)
    at = _coordinates(points, t)
    if test_count is not None:
        test_count = checks.whole("test_count", test_count, least=1)
    data = [replayable_loader(surface, None, count=how.count).cached()]
    if loader is not None:
        data.append(replayable_loader(surface, loader, count=test_count).cached())
    settings: dict[str, Any] = {}
    if store is not None:
        settings = {
            "t": at.tolist(),
            "rows": [f"{one.num_examples} {one.checksum}" for one in data],
        }
        settings |= evaluation_fingerprint(curve, surface, how)
    passes = [(rows, Whole(surface.task)) for rows in data]
    how = replace(how, count=None)  # counted above, a loader at a time
    scan = PointScan(
        curve,
        surface,
        at[:, None],
        passes,
        how,
        row=lambda parts, _: _with_test(parts),
        blocks=False,  # the rounding of a point's weights does not depend on the chunk
    )
    ledger = Ledger(store, settings)
    scan.run(ledger, ledger.plan or scan.plan(), progress=progress, label="path")
    columns = Table.from_rows([scan.rows[i] for i in range(len(at))]).columns
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
        metrics={k: v for k, v in columns.items() if k.removeprefix("test_") not in kept},
        batchnorm=how.batchnorm if surface.has_batchnorm else "none",
        examples=data[0].num_examples or 0,
        outside=bool((at < 0).any() or (at > 1).any()),
    )


def _with_test(parts: Sequence[Row]) -> Row:
    """One row: the metrics of further examples are named test_."""
    rest = {f"test_{name}": value for part in parts[1:] for name, value in part.items()}
    return {**parts[0], **rest}


def _coordinates(points: int, t: Any) -> Tensor:  # (n,) float64
    if t is None:
        points = checks.whole("points", points, least=2, most=10_000_000)
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
