"""Batches in the sizes that a computer goes through fastest, where sums do not depend on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lowland.core.data import concatenate, joinable, map_tensors, nbytes
from lowland.core.task import rows

_PIECE = 4096  # rows at once: activations of more leave the cache
_MOST = 1 << 28  # bytes that are put together: there are two of them for a moment


def pieces(batches: list[Any]) -> Iterator[Any]:
    """Batches put together and apart again into pieces of a few thousand rows.

    Those whose tensors do not all have the rows, as a graph's, or not one shape, or with lists
    beside them, stay as they are.

    >>> import torch
    >>> [rows(piece) for piece in pieces([(torch.zeros(n, 2),) for n in (3000, 2000)])]
    [4096, 904]
    """
    apart = all(joinable(batch) for batch in batches)
    small = len(batches) > 1 and max(map(rows, batches)) < _PIECE
    whole = concatenate(batches) if apart and small and nbytes(batches) < _MOST else None
    for batch in batches if whole is None else [whole]:
        size = rows(batch)
        if not apart or size <= _PIECE:
            yield batch
            continue
        for start in range(0, size, _PIECE):
            yield map_tensors(batch, lambda t, at=start: t[at : at + _PIECE])
