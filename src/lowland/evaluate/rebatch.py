"""Batches in the sizes that a computer goes through fastest, where sums do not depend on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lowland.core.data import concatenate, is_sliceable, map_tensors, nbytes
from lowland.core.task import count_examples

_PIECE = 4096  # rows at once: activations of more leave the cache
_MOST = 1 << 28  # bytes that are put together: there are two of them for a moment


def pieces(batches: list[Any]) -> Iterator[Any]:
    """Batches put together and apart again into pieces of a few thousand rows.

    Those whose tensors do not all have the rows, as a graph's, or not one shape, or with lists
    beside them, stay as they are.

    >>> import torch
    >>> [count_examples(piece) for piece in pieces([(torch.zeros(n, 2),) for n in (3000, 2000)])]
    [4096, 904]
    """
    apart = all(is_sliceable(batch) for batch in batches)
    small = len(batches) > 1 and max(map(count_examples, batches)) < _PIECE
    whole = concatenate(batches) if apart and small and nbytes(batches) < _MOST else None
    for batch in batches if whole is None else [whole]:
        size = count_examples(batch)
        if not apart or size <= _PIECE:
            yield batch
            continue
        for start in range(0, size, _PIECE):
            yield map_tensors(batch, lambda t, at=start: t[at : at + _PIECE])
