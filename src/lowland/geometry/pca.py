"""Principal components of many weight vectors, through their Gram matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lowland.core.buffers import BufferMean, Buffers
from lowland.core.point import Point
from lowland.core.spread import relative_spread, warn_if_still
from lowland.core.threads import using_threads
from lowland.errors import DataError, NonFiniteError
from lowland.geometry.rank import ROUNDING, Rank, resolve_rank, span_of
from lowland.geometry.stacking import common_dtype

# values that are widened to float64 at a time: few enough that a block stays in a core's cache
# between its mean, its product and its successor, where it takes a third of the time
_VALUES = 1 << 18
_LEAST = 256  # columns: below them a product costs more for its calling than for its work


class _Source(NamedTuple):
    """Where the components come from: rows whose squares sum to what is to be explained."""

    rows: Sequence[Tensor]  # K of (P,)
    mean: Tensor | None  # that rows are deviations from; None: rows are iterates
    samples: int  # how many iterates the rows stand for
    discarded: float = 0.0  # sum of squares that is missing in the rows
    deviations: bool = False  # whether the rows are SWAG's deviations


def principal(source: Any, rank: Rank) -> tuple[Tensor, Tensor]:
    r"""The mean and below it the first components, each times its standard deviation, (1 + k, P);
    and the share of the variance of each, (k,) float64.

    With centred iterates X (K, P) and \(X X^T = U S^2 U^T\), row i is
    \(s_i v_i / \sqrt{K - 1} = u_i^T X / \sqrt{K - 1}\). Two passes over the iterates, block by
    block of columns, in float64: no dense copy of them, and nothing of size P x P.

    >>> rows, explained = principal(torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]]), 1)
    >>> rows.abs(), explained
    (tensor([[2., 0.],
            [2., 0.]]), tensor([1.], dtype=torch.float64))
    """
    collected = _source_of(source)
    rows, mean, samples = collected.rows, collected.mean, collected.samples
    if samples < 2:
        raise DataError(f"principal components need at least two iterates, got {samples}.")
    centred = mean is not None
    gram = gram_of(rows, centred=centred)
    if not bool(torch.isfinite(gram).all()):
        bad = next((i for i, row in enumerate(rows) if not bool(row.isfinite().all())), 0)
        what = "deviation" if centred else "iterate"
        raise NonFiniteError(
            f"{what} {bad} of {len(rows)} has a NaN or infinite weight; leave out "
            "iterates of a run that diverged."
        )
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0), vectors.flip(1)
    total = float(values.clamp_min(0).sum()) + collected.discarded
    # rows of a sketch may be more than the iterates less one, and rounding is no dimension
    spectrum = values[: min(span_of(values), samples - (not centred))]
    k = resolve_rank(
        rank,
        spectrum,
        total=total,
        samples=samples,
        whole=collected.discarded <= ROUNDING * total,
        deviations=collected.deviations,
    )
    spread = math.sqrt(total / (samples - 1))
    like = rows[0] if mean is None else mean
    out = torch.empty(1 + k, len(like), dtype=common_dtype([like]), device=like.device)
    if mean is not None:
        out[0] = mean.detach()
    turn = vectors[:, :k].T / (samples - 1) ** 0.5
    for part, block, middle in blocks(rows, centred=centred):
        out[1:, part] = turn @ block
        if mean is None:
            out[0, part] = middle
    warn_if_still(
        relative_spread(spread, float(out[0].norm())),
        so="so that their principal components are noise",
    )
    return out, spectrum[:k] / total


def mean_buffers(source: Any) -> Buffers | None:
    """The buffers that belong to the mean: the moments' own, or the mean of the iterates'."""
    own = getattr(source, "buffers", None)
    if isinstance(own, dict):
        return own
    if isinstance(source, Tensor) or not hasattr(source, "__getitem__"):
        return None
    mean = BufferMean()
    for i in range(len(source)):
        iterate = source[i]
        if isinstance(iterate, Point) and iterate.buffers:
            mean.update(iterate.buffers, 1 / (i + 1))
    return mean.values() or None


def gram_of(rows: Sequence[Tensor], *, centred: bool) -> Tensor:
    """Inner products of K rows (P,), (K, K) float64; unless they are `centred`, less their mean."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows[0].device)
    for _, block, _ in blocks(rows, centred=centred):
        total.addmm_(block, block.T)
    return total


def blocks(rows: Sequence[Tensor], *, centred: bool) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Columns of the rows in float64, (K, some), less their mean unless `centred`; and the mean.

    A block is overwritten by the next one.
    """
    many, size, device = len(rows), len(rows[0]), rows[0].device
    on_cpu = device.type == "cpu"
    step = min(max(_VALUES // many, _LEAST), size) if on_cpu else size
    wide = torch.empty(many, step, dtype=torch.float64, device=device)
    # operations of a tenth of a millisecond: several threads would wait longer than they work
    with using_threads(1) if on_cpu else nullcontext():
        for start in range(0, size, step):
            part = slice(start, min(start + step, size))
            block = wide[:, : part.stop - start]
            block.copy_(torch.stack([row[part] for row in rows]))
            middle = block.mean(0)
            yield part, (block if centred else block.sub_(middle)), middle


def _source_of(source: Any) -> _Source:
    if isinstance(source, Tensor):
        if source.ndim != 2:
            raise DataError(f"expected iterates (K, P), got {tuple(source.shape)}.")
        return _Source(list(source.detach()), None, len(source))
    sketch = getattr(source, "sketch", None)
    if isinstance(sketch, Tensor):  # of FrequentDirections
        rows = list(sketch) or [torch.zeros_like(source.mean)]
        return _Source(rows, source.mean, source.count, source.discarded)
    deviations = getattr(source, "deviations", None)
    if isinstance(deviations, Tensor):  # SWAG's
        return _Source(list(deviations), source.mean, len(deviations), deviations=True)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        points = [source[i] for i in range(len(source))]  # mapped from a store, not read
        iterates = [(p.weights if isinstance(p, Point) else p).detach() for p in points]
        return _Source(iterates, None, len(iterates))
    raise DataError(
        "expected a Trajectory, a SWAG, a FrequentDirections or iterates (K, P), got "
        f"{type(source).__name__}."
    )
