"""Principal components of many weight vectors, through their Gram matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lowland.core.point import Point
from lowland.errors import ConfigError, DataError

_BLOCK = 1 << 18  # columns that are widened to float64 at a time
_RANK = 1e-10  # of the largest eigenvalue: below it there is only rounding


def principal(source: Any, rank: int) -> tuple[Tensor, Tensor]:
    r"""Mean (P,) and the first `rank` components (k, P), each times its standard deviation.

    With centred iterates X (K, P) and \(X X^T = U S^2 U^T\), row i is
    \(s_i v_i / \sqrt{K - 1} = u_i^T X / \sqrt{K - 1}\). Two passes over the iterates, block by
    block of columns, in float64: no dense copy of them, and nothing of size P x P.

    >>> mean, rows = principal(torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]]), 1)
    >>> mean, rows.abs()
    (tensor([2., 0.]), tensor([[2., 0.]]))
    """
    rows, mean = _rows_of(source)
    many = len(rows)
    if many < 2:
        raise DataError(f"principal components need at least two iterates, got {many}.")
    if not 1 <= rank < many:
        raise ConfigError(
            f"rank: expected 1 to {many - 1}, which {many} iterates can span, got {rank}."
        )
    first = rows[0]
    gram = torch.zeros(many, many, dtype=torch.float64, device=first.device)
    for block, _ in _blocks(rows, centred=mean is not None):
        gram += block @ block.T
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0)[:rank], vectors.flip(1)[:, :rank]
    span = int((values > _RANK * values[0]).sum()) if values[0] > 0 else 0
    if span < rank:
        raise ConfigError(
            f"rank: expected at most {span}, which is what the {many} iterates span, got {rank}."
        )
    dtype = first.dtype if mean is None else mean.dtype
    center = torch.empty(first.shape[-1], dtype=dtype, device=first.device)
    out = center.new_empty(rank, len(center))
    start = 0
    for block, middle in _blocks(rows, centred=mean is not None):
        part = slice(start, start + block.shape[1])
        out[:, part] = (vectors.T @ block / (many - 1) ** 0.5).to(dtype)
        center[part] = middle.to(dtype)
        start = part.stop
    return center if mean is None else mean, out


def _rows_of(source: Any) -> tuple[Sequence[Tensor], Tensor | None]:
    """The iterates; or deviations and the mean that they are from."""
    if isinstance(source, Tensor):
        if source.ndim != 2:
            raise DataError(f"expected iterates (K, P), got {tuple(source.shape)}.")
        return list(source), None
    deviations = getattr(source, "deviations", None)
    if isinstance(deviations, Tensor):  # SWAG's
        return list(deviations), source.mean
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        found = [source[i] for i in range(len(source))]  # mapped from a store, not read
        return [p.weights if isinstance(p, Point) else p for p in found], None
    raise DataError(
        f"expected a Trajectory, a SWAG or iterates (K, P), got {type(source).__name__}."
    )


def _blocks(rows: Sequence[Tensor], *, centred: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Columns of the iterates less their mean, (K, at most _BLOCK) float64, and the mean."""
    for start in range(0, len(rows[0]), _BLOCK):
        block = torch.stack([row[start : start + _BLOCK].double() for row in rows])
        middle = block.mean(0)
        yield (block if centred else block - middle), middle
