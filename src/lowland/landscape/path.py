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
from lowland.evaluate.fingerprint import evaluation_fingerprint
from lowland.files import PathLike
from lowland.geometry import Curve
from lowland.landscape.journal import Journal
from lowland.landscape.point_metrics import AllMetricsSink, Row
from lowland.landscape.point_scan import PointScan
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

    Losses that are not finite stay so. BatchNorm statistics are estimated once a point, for the
    surface's examples and the loader's alike.

    Args:
        curve: a `Line`, `Bezier`, `PolyChain`. points: their number, even in t from end to end.
        loader: further examples, such as the test set, for `test_loss` and `test_error`.
        t: coordinates in rising order, instead of `points`; outside [0, 1] they extend the curve.
        test_count: number of examples of `loader`; None: all. `count=`: of the surface's own.
        store: a file to which every chunk of points is written; an existing one is continued, to
            the same values bit by bit; see `scan`.
        progress, options: as for `predict`. `batchnorm="frozen"` takes the model's statistics at
            all points, and raises where the curve's ends have their own.

    Raises:
        ConfigError: a shape that is no curve, fewer than two points, a file of another path, frozen
            statistics of ends that have their own. LayoutError: a curve of another model.
        NonFiniteError: not one finite loss.

    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> from lowland.geometry import Line
    >>> data = [(torch.ones(1, 1), torch.zeros(1, 1))]
    >>> surface = LossSurface(nn.Linear(1, 1, bias=False), Regression(noise_variance=1.0), data)
    >>> result = path(Line(torch.tensor([-1.0]), torch.tensor([1.0])), surface, points=3)
    >>> (result.loss - result.loss[1]).tolist(), result.length.tolist()  # w² / 2
    ([0.5, 0.0, 0.5], [0.0, 1.0, 2.0])
    """
    if not isinstance(curve, Curve):
        raise ConfigError(
            f"curve: expected a Line, Bezier, PolyChain or another Curve, got "
            f"{type(curve).__name__}; ll.scan draws planes."
        )
    surface.layout.check(curve.anchors)
    eval_options = surface.options.override(**options)
    require_statistics(curve, surface, eval_options)
    coords = _coordinates(points, t)
    if test_count is not None:
        test_count = checks.whole("test_count", test_count, least=1)
    data = [surface.replayable(None, count=eval_options.count).cached()]
    if loader is not None:
        data.append(surface.replayable(loader, count=test_count).cached())
    settings: dict[str, Any] = {}
    if store is not None:
        settings = {
            "t": coords.tolist(),
            "examples": [f"{loader.num_examples} {loader.checksum}" for loader in data],
        }
        settings |= evaluation_fingerprint(curve, surface, eval_options)
    passes = [(loader, AllMetricsSink(surface.task)) for loader in data]
    eval_options = replace(eval_options, count=None)  # each loader has its own count, above
    scan = PointScan(
        curve,
        surface,
        coords[:, None],
        passes,
        eval_options,
        row=lambda parts, _: _with_test(parts),
        blocks=False,  # the rounding of a point's weights does not depend on the chunk
    )
    journal = Journal(store, settings)
    scan.run(journal, journal.plan or scan.plan(), progress=progress, label="path")
    columns = Table.from_rows([scan.rows[i] for i in range(len(coords))]).columns
    if not bool(torch.isfinite(columns["loss"]).any()):
        raise NonFiniteError(
            f"the loss is NaN or infinite at all {len(coords)} points of the curve; evaluate "
            "its ends by surface(w), and check the runs that trained them."
        )
    fields = ("loss", "error", "accuracy")  # fields of the record; accuracy is 1 - error
    missing = torch.full_like(columns["loss"], torch.nan)
    return PathResult(
        coords,
        columns["loss"],
        columns.get("error", missing),
        *_norms(curve, coords),
        length=curve.length_to(coords),
        test_loss=columns.get("test_loss"),
        test_error=columns.get("test_error", None if loader is None else missing),
        metrics={k: v for k, v in columns.items() if k.removeprefix("test_") not in fields},
        batchnorm=eval_options.batchnorm if surface.has_batchnorm else "none",
        examples=data[0].num_examples or 0,
        outside=bool((coords < 0).any() or (coords > 1).any()),
    )


def _with_test(parts: Sequence[Row]) -> Row:
    """One row; the metrics of the further examples have names that begin with test_."""
    test = {f"test_{name}": value for part in parts[1:] for name, value in part.items()}
    return {**parts[0], **test}


def _coordinates(points: int, t: Any) -> Tensor:  # (n,) float64
    if t is None:
        points = checks.whole("points", points, least=2, most=10_000_000)
        return torch.linspace(0, 1, points, dtype=torch.float64)
    coords = torch.as_tensor(t, dtype=torch.float64).detach().cpu().reshape(-1)
    if (
        len(coords) < 2
        or not bool((coords[1:] > coords[:-1]).all())
        or not bool(torch.isfinite(coords).all())
    ):
        raise ConfigError(
            f"t: expected at least 2 coordinates in rising order, got {coords.tolist()[:5]}."
        )
    return coords


def _norms(curve: Curve, t: Tensor) -> tuple[Tensor, Tensor]:
    """|w(t)| and |w(t) - w(0)|, (n,) each, from the inner products of the anchors."""
    c = curve.coefficients(torch.cat([torch.zeros(1).to(t), t])[:, None].to(curve.device))
    gram = curve.gram()

    def norm(coefficients: Tensor) -> Tensor:
        return (
            torch.einsum("na,ab,nb->n", coefficients, gram, coefficients).clamp_min(0).sqrt().cpu()
        )

    return norm(c[1:]), norm(c[1:] - c[:1])
