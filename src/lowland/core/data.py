"""Loaders that are read more than once: moved, counted, and refused when they change."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from lowland import checks
from lowland.core.task import Task, count_examples
from lowland.errors import DataError

RESIDENT_SHARE = 0.25  # of the free memory, for resident examples


class ReplayableLoader:
    """The batches of a replayable loader, taken apart (`Batch`), on a device.

    The first complete pass records a checksum of every example; a later pass with other examples
    (random augmentation, a consumed iterator) raises `DataError`. A changed order is allowed unless
    `ordered`, since sums do not depend on it.

    Args:
        loader: any iterable of batches that can be gone through again.
        task: takes batches apart and counts their items.
        device: where batches are moved to.
        count: examples to read, for loaders without an end.
        channels_last: memory format of (N, C, H, W) tensors.

    >>> from lowland.core import Regression
    >>> data = ReplayableLoader([torch.zeros(3, 2), torch.ones(1, 2)], Regression(), device="cpu")
    >>> [len(batch.args[0]) for batch in data], data.num_examples
    ([3, 1], 4)
    """

    def __init__(
        self,
        loader: Iterable[Any],
        task: Task,
        *,
        device: torch.device | str,
        count: int | None = None,
        channels_last: bool = False,
    ) -> None:
        if isinstance(loader, Tensor | Mapping) or not hasattr(loader, "__iter__"):
            raise DataError(
                f"the loader: expected an iterable of batches, got {type(loader).__name__}; wrap "
                "data in a DataLoader or in a list of batches."
            )
        self.loader = loader
        self.task = task
        self.device = torch.device(device)
        self.count = None if count is None else checks.whole("count", count, least=1)
        self.channels_last = channels_last
        self.num_examples: int | None = None  # known after the first pass
        self.items: int | None = None
        self._sum: tuple[int, int] | None = None
        self._resident: list[Any] | None = None
        self._streamed = False  # the examples are known not to fit in memory

    def __iter__(self) -> Iterator[Any]:
        return self.batches()

    def batches(self, *, ordered: bool = False) -> Iterator[Any]:
        """One pass. Sets `num_examples` and `items`; compares the examples with the first pass."""
        if self._resident is not None:
            yield from self._resident
            return
        seen = items = unordered = sequence = 0
        for raw in self.loader:
            # unpacked first: only the task's unpack= knows a batch of another form
            batch: Any = self.task.parts(raw)
            size = count_examples(batch)
            if self.count is not None and seen + size > self.count:
                size = self.count - seen
                batch = first_examples(batch, size)
            if size == 0:
                continue
            hashes = example_hashes(batch, size)
            places = torch.arange(seen, seen + size) * _PRIME
            # modulo 2^64, as the sums within a batch, so that the batching does not matter
            unordered = (unordered + int(hashes.sum())) % _MODULUS
            sequence = (sequence + int(_mix(hashes + places).sum())) % _MODULUS
            seen += size
            items += self.task.count(batch)
            yield move(batch, self.device, channels_last=self.channels_last)
            if self.count is not None and seen >= self.count:
                break
        self._finish(seen, items, (unordered, sequence), ordered)

    def first(self) -> Any:
        """The first batch alone; not a pass."""
        for batch in self.loader:
            return move(self.task.parts(batch), self.device, channels_last=self.channels_last)
        raise DataError("the loader is empty: it gave no examples; check its data set.")

    def _finish(self, seen: int, items: int, checksums: tuple[int, int], ordered: bool) -> None:
        if seen == 0:
            again = " on the second pass: give a loader, not an iterator" if self._sum else ""
            raise DataError(
                f"the loader is empty{again or ': it gave no examples; check its data set'}."
            )
        if items == 0:
            raise DataError("the loader has no item that counts: every label is ignored.")
        if self._sum is None:
            self.num_examples, self.items, self._sum = seen, items, checksums
        elif self.num_examples != seen or self._sum[0] != checksums[0]:
            raise DataError(
                f"the loader changed: {seen} examples now, {self.num_examples} before, and not "
                "the same ones; turn random augmentation and drop_last off, and pass a loader that "
                "replays its examples."
            )
        elif ordered and self._sum[1] != checksums[1]:
            raise DataError(
                "the loader gives the same examples in another order; pass shuffle=False here."
            )

    @property
    def counted_items(self) -> int:
        """How many items a pass has counted."""
        assert self.items is not None
        return self.items

    @property
    def checksum(self) -> int | None:
        """Of all examples, in any order; None: before the first pass."""
        return None if self._sum is None else self._sum[0]

    def resident(self) -> list[Any] | None:
        """All batches, read once; None where they take more memory than `budget`."""
        if self._resident is not None or self._streamed:
            return self._resident
        budget = self.budget()
        stored: list[Any] | None = []
        used = 0
        for batch in self.batches():
            if stored is None:
                continue
            used += nbytes(batch)
            stored.append(batch)
            if used > budget:
                stored = None
        return stored

    def budget(self) -> float:
        """Bytes that batches may take in memory."""
        return RESIDENT_SHARE * free_memory(self.device)

    def cached(self) -> ReplayableLoader:
        """A copy whose examples stay in memory where they fit.

        Later passes over this loader are compared with the first pass over the copy.
        """
        copied = copy.copy(self)
        copied._resident = copied.resident()
        copied._streamed = copied._resident is None
        self.num_examples, self.items, self._sum = copied.num_examples, copied.items, copied._sum
        return copied

    def subset(self, batches: list[Any]) -> ReplayableLoader:
        """A loader of some of these batches, in memory."""
        part = copy.copy(self)
        part._resident, part._sum = batches, None
        part.num_examples = sum(count_examples(batch) for batch in batches)
        part.items = sum(self.task.count(batch) for batch in batches)
        return part


def move(data: Any, device: torch.device, *, channels_last: bool = False) -> Any:
    """The same nesting with its tensors, and what else has a `.to`, on `device`."""

    def move_tensor(tensor: Tensor) -> Tensor:
        if channels_last and tensor.ndim == 4:
            return tensor.to(device, memory_format=torch.channels_last)
        return tensor.to(device)

    def other(value: Any) -> Any:
        return value.to(device) if hasattr(value, "to") else value

    return map_tensors(data, move_tensor, other)


def first_examples(data: Any, size: int) -> Any:
    """The first `size` examples of a nesting; tensors without a batch dimension stay whole."""
    whole = count_examples(data)
    if whole <= size:
        return data
    return map_tensors(data, lambda t: t[:size] if t.ndim and t.shape[0] == whole else t)


def is_sliceable(batch: Any) -> bool:
    """Whether a batch can be sliced by examples: all tensors have the batch dimension, and there
    is no list of other objects, which may be one for each example."""
    size = count_examples(batch)
    if not all(tensor.ndim and tensor.shape[0] == size for tensor in tensors(batch)):
        return False

    def plain(data: Any) -> bool:
        if isinstance(data, Mapping):
            return all(map(plain, data.values()))
        if isinstance(data, tuple | list):
            if data and not any(isinstance(v, Tensor | Mapping | tuple | list) for v in data):
                return False
            return all(map(plain, data))
        return True

    return plain(batch)


def concatenate(batches: list[Any]) -> Any | None:
    """One batch of many; None: their tensors, or the values beside them, differ too much."""
    columns = [list(tensors(batch)) for batch in batches]
    if len({tuple((c.shape[1:], c.dtype) for c in column) for column in columns}) != 1:
        return None
    if not all(map(is_sliceable, batches)) or not all(_alike(batches[0], b) for b in batches[1:]):
        return None
    concatenated = iter([torch.cat(parts) for parts in zip(*columns, strict=True)])
    return map_tensors(batches[0], lambda _: next(concatenated))


def _alike(a: Any, b: Any) -> bool:
    """Whether two nestings differ in the values of their tensors alone."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return True
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return list(a) == list(b) and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(_alike, a, b))
    try:
        return a is b or bool(a == b)
    except Exception:  # of arrays, or what else does not compare
        return False


def map_tensors(data: Any, function: Any, other: Any = None) -> Any:
    """Applies `function` to every tensor of a nesting of tuples, lists and mappings.

    `other` is applied to what is neither a nesting nor a tensor; None leaves it as it is.
    """
    if isinstance(data, Tensor):
        return function(data)
    if isinstance(data, Mapping):
        return {key: map_tensors(value, function, other) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(map_tensors(value, function, other) for value in data))
    if isinstance(data, tuple | list):
        return type(data)(map_tensors(value, function, other) for value in data)
    return data if other is None else other(data)


def tensors(data: Any) -> Iterator[Tensor]:
    """Every tensor of a nesting, in a fixed order."""
    if isinstance(data, Tensor):
        yield data
    elif isinstance(data, Mapping):
        for value in data.values():
            yield from tensors(value)
    elif isinstance(data, tuple | list):
        for value in data:
            yield from tensors(value)


def nbytes(data: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors(data))


def free_memory(device: torch.device) -> int:
    """Bytes that could be allocated on `device` now."""
    if device.type == "cuda":
        # memory that torch has reserved and not allocated is free, too
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + idle
    try:
        with open("/proc/meminfo") as file:
            line = next(line for line in file if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        pages = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else 0
        return pages * os.sysconf("SC_PAGE_SIZE") if pages else 1 << 30


# -- checksums: 64-bit integers with wrap-around ---------------------------------------------------

_PRIME = -7046029254386353131  # 2^64 / golden ratio, odd, as a signed integer
_SECOND = -4417276706812531889
_MODULUS = 1 << 64
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def example_hashes(batch: Any, size: int) -> Tensor:  # (size,) int64
    """One hash for each example of a batch, over all its tensors with the batch dimension.

    >>> a = example_hashes((torch.eye(3), torch.arange(3)), 3)
    >>> b = example_hashes((torch.eye(3).flip(0), torch.arange(3).flip(0)), 3)
    >>> bool((a == b.flip(0)).all()), len(set(a.tolist()))
    (True, 3)
    """
    total = torch.zeros(size, dtype=torch.int64)
    for tensor in tensors(batch):
        if tensor.ndim == 0 or tensor.shape[0] != size:
            continue
        flat = tensor.detach().reshape(size, -1).contiguous()
        if flat.is_complex():
            flat = torch.view_as_real(flat).reshape(size, -1)
        if flat.dtype == torch.bool:
            flat = flat.to(torch.int8)
        bits = flat.view(_INTEGERS[flat.element_size()]).to(torch.int64)
        total = _mix(total * _PRIME + (bits * _powers(bits.shape[1], bits.device)).sum(1).cpu())
    return total


@lru_cache(maxsize=16)
def _powers(width: int, device: torch.device) -> Tensor:  # (width,) odd numbers
    return _mix(torch.arange(1, width + 1, device=device) * _SECOND) | 1


def _mix(values: Tensor) -> Tensor:
    """Spreads every bit over the others, so that sums of hashes do not cancel."""
    values = (values ^ (values >> 29)) * _SECOND
    values = (values ^ (values >> 32)) * _PRIME
    return values ^ (values >> 29)
