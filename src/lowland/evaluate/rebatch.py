"""Batches of the fastest size, for sums that do not depend on the batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lowland.core.data import concatenate, is_sliceable, map_tensors, nbytes
from lowland.core.task import count_examples

_BATCH = 4096  # examples: activations of more leave the cache
_MAX_BYTES = 1 << 28  # to concatenate: for a moment they are held twice


def rebatch(batches: list[Any]) -> Iterator[Any]:
    """Batches concatenated and split again into batches of a few thousand examples.

    Batches stay as they are where a tensor has another first dimension, as in a graph, where shapes
    differ, or where they hold lists.

    >>> import torch
    >>> [count_examples(batch) for batch in rebatch([(torch.zeros(n, 2),) for n in (3000, 2000)])]
    [4096, 904]
    """
    sliceable = all(is_sliceable(batch) for batch in batches)
    small = len(batches) > 1 and max(map(count_examples, batches)) < _BATCH
    may_concatenate = sliceable and small and nbytes(batches) < _MAX_BYTES
    joint_batch = concatenate(batches) if may_concatenate else None
    for batch in batches if joint_batch is None else [joint_batch]:
        if sliceable:
            yield from slices(batch, _BATCH)
        else:
            yield batch


def slices(batch: Any, size: int) -> Iterator[Any]:
    """A batch in parts of at most `size` examples; whole where it cannot be sliced.

    >>> import torch
    >>> [count_examples(part) for part in slices((torch.zeros(5, 2),), 2)]
    [2, 2, 1]
    """
    count = count_examples(batch)
    if count <= size or not is_sliceable(batch):
        yield batch
        return
    for start in range(0, count, size):
        yield map_tensors(batch, lambda t, at=start: t[at : at + size])
