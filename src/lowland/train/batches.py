"""Batches whose order is a function of (seed, epoch), so that a resumed run sees the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lowland import checks
from lowland.core.data import example_hashes, map_tensors, tensors
from lowland.core.seeds import seed_for
from lowland.core.task import Task, count_examples
from lowland.core.threads import using_threads
from lowland.errors import DataError
from lowland.train.rng import rng_state, seed_all, set_rng_state

Transform = Callable[[Any, torch.Generator], Any]


class Batches:
    """Seeded batches of tensors or of a map-style data set.

    Epoch e has the same batches in the same order each time, from any batch on, so that training
    resumes in mid-epoch. Without `shuffle` it is a replayable loader for evaluation. Iterating over
    it yields epoch 0, 1, 2, ... in turn. A `Dataset` that draws random numbers itself draws others
    each time, and a resumed run continues with the same ones only with workers=0: use `transform`
    instead.

    Args:
        data: a tuple or dict of tensors with equal first dimensions, indexed as a whole; or a
            map-style `Dataset`, read through a `DataLoader`.
        batch_size: examples per batch; the last may be smaller unless `drop_last`.
        shuffle: a new order every epoch. seed: of orders and transforms.
        fixed: epoch 0 every time: a replayable loader whose first examples are a random sample.
        transform: (batch, generator) -> batch, such as random crops of a whole batch; its
            generator too is a function of (seed, epoch, batch).
        workers: processes that read a `Dataset`.

    Raises:
        DataError: no examples, or tensors whose first dimensions differ.

    >>> batches = Batches((torch.arange(5.0)[:, None], torch.arange(5)), batch_size=2, seed=3)
    >>> first = [y.tolist() for _, y in batches.epoch(0)]
    >>> first == [y.tolist() for _, y in batches.epoch(0)], len(batches)
    (True, 3)
    >>> [y.tolist() for _, y in batches.epoch(0, start=2)] == first[2:]
    True
    """

    def __init__(
        self,
        data: Any,
        *,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        transform: Transform | None = None,
        workers: int = 0,
        fixed: bool = False,
    ) -> None:
        self.data = data
        self.batch_size = checks.whole("batch_size", batch_size, least=1)
        self.shuffle = shuffle
        self.seed = checks.seed(seed)
        self.transform = transform
        self.workers = checks.whole("workers", workers, least=0)
        self.fixed = fixed
        self.resident = isinstance(data, Tensor | Mapping | tuple | list)
        self.num_examples = self._count()
        self.drop_last = drop_last
        if len(self) == 0:
            raise DataError(
                f"the data set has {self.num_examples} examples, which make no batch of "
                f"{batch_size}; check the data, or drop_last."
            )
        self._next_epoch = 0

    def _count(self) -> int:
        if not self.resident:
            if not hasattr(self.data, "__len__"):
                raise DataError(
                    "expected tensors or a map-style data set; pass other loaders as they are."
                )
            return len(self.data)
        if next(tensors(self.data), None) is None:
            raise DataError(
                "expected tensors, and there are none; make them with torch.as_tensor, or give a "
                "Dataset."
            )
        others: list[Any] = []
        map_tensors(self.data, lambda tensor: tensor, others.append)
        if any(hasattr(leaf, "__array__") for leaf in others):
            raise DataError(
                "expected tensors, got an array among them, which every batch would hold whole; "
                "convert it with torch.as_tensor."
            )
        sizes = {tensor.shape[0] if tensor.ndim else 0 for tensor in tensors(self.data)}
        if len(sizes) != 1:
            raise DataError(
                f"expected tensors of equal first dimensions, got {sorted(sizes)}; index lists of "
                "examples through a Dataset."
            )
        return count_examples(self.data)

    def __len__(self) -> int:
        whole, rest = divmod(self.num_examples, self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    def __iter__(self) -> Iterator[Any]:
        number = self._next_epoch
        self._next_epoch += 1
        return self.epoch(number)

    def epoch(self, number: int, *, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch from batch `start` on."""
        number = 0 if self.fixed else checks.whole("number", number, least=0)
        start = checks.whole("start", start, least=0)
        parts = list(self.order(number).split(self.batch_size))[start : len(self)]
        for index, batch in enumerate(self._read(parts, number), start=start):
            if self.transform is not None:
                batch = self.transform(batch, self._generator(number, index + 1))
            yield batch

    def full(self) -> Batches:
        """The same batches without a last one that is smaller than the first."""
        batches = copy(self)
        batches.drop_last = self.num_examples >= self.batch_size  # an only batch stays
        return batches

    def content_hash(self) -> str | None:
        """A hash of the first example, which differs between data sets; other examples may be
        corrected between two runs. None: a `Dataset`, whose examples may be random."""
        if not self.resident:
            return None
        first = map_tensors(self.data, lambda tensor: tensor[:1])
        return f"{int(example_hashes(first, 1)) % 2**64:016x}"

    def order(self, number: int) -> Tensor:
        """The indices of the examples of an epoch in their order, (N,)."""
        if not self.shuffle:
            return torch.arange(self.num_examples)
        number = checks.whole("number", number, least=0)
        return torch.randperm(self.num_examples, generator=self._generator(number, 0))

    def _read(self, parts: list[Tensor], number: int) -> Iterator[Any]:
        if self.resident:
            for part in parts:
                if self.shuffle:
                    yield map_tensors(self.data, lambda t, i=part: _index(t, i))
                else:  # neighbours: a slice is a view
                    neighbours = slice(int(part[0]), int(part[-1]) + 1)
                    yield map_tensors(self.data, lambda t, i=neighbours: t[i])
            return
        data: Dataset[Any] = self.data
        yield from DataLoader(
            data,
            batch_sampler=[part.tolist() for part in parts],
            num_workers=self.workers,
            generator=self._generator(number, 0),
        )

    def _generator(self, epoch: int, index: int) -> torch.Generator:
        # torch keeps 32 bits of a CPU seed: mix the parts instead of adding them
        mixed = np.random.SeedSequence((self.seed, epoch, index)).generate_state(1)
        return torch.Generator().manual_seed(int(mixed[0]))


class FirstBatches:
    """The first `count` batches of each epoch of a loader.

    >>> first = FirstBatches(Batches((torch.arange(6.0)[:, None],), batch_size=2, seed=0), 2)
    >>> len(first), [len(batch[0]) for batch in first]
    (2, [2, 2])
    """

    def __init__(self, loader: Any, count: int) -> None:
        self.loader = loader
        self.count = checks.whole("count", count, least=1)

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.loader), self.count)

    def __len__(self) -> int:
        return min(self.count, len(self.loader))


class FullBatches:
    """The batches of a loader without a last one that is smaller than the first.

    Its length is known for lists, and for a `DataLoader` that has a batch size.

    Args:
        loader: any iterable of batches. task: takes batches apart, so that their examples count.

    >>> from lowland.core import Regression
    >>> loader = [torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(1, 1)]
    >>> full = FullBatches(loader, Regression())
    >>> len(full), [len(batch) for batch in full]
    (2, [3, 3])
    """

    def __init__(self, loader: Iterable[Any], task: Task) -> None:
        self.loader = loader
        self.task = task

    def __iter__(self) -> Iterator[Any]:
        previous: list[Any] = []  # the batch that may be the last
        first = 0
        for batch in self.loader:
            yield from previous
            previous = [batch]
            first = first or self._size(batch)
        yield from (batch for batch in previous if self._size(batch) >= first)

    def __len__(self) -> int:
        loader = self.loader
        if isinstance(loader, DataLoader) and loader.batch_size is not None:
            return max(len(loader.sampler) // loader.batch_size, min(len(loader), 1))  # type: ignore[arg-type]
        if isinstance(loader, Sequence) and loader:
            return len(loader) - (self._size(loader[-1]) < self._size(loader[0]))
        raise TypeError("the number of full batches is known after a pass")

    def _size(self, batch: Any) -> int:
        return count_examples(self.task.parts(batch))


def rest_of_epoch(data: Iterable[Any], epoch: int, *, done: int, seed: int) -> Iterator[Any]:
    """The batches of a user's loader behind the first `done` ones.

    Such a loader draws its order from a global generator, which is seeded at the start of the
    epoch. Behind the batches that were trained on already its present state is restored.
    """
    state = rng_state()
    seed_all(seed_for("order", seed, epoch))
    batches = iter(data)
    for _ in range(done):
        next(batches, None)
    if done:
        set_rng_state(state)
    yield from batches


def no_examples_error(*, is_first_pass: bool) -> DataError:
    """The error for a loader without a batch."""
    if is_first_pass:
        return DataError("the training loader is empty: it gave no examples; check its data set.")
    return DataError(
        "the training loader gave no examples in its second pass: give a loader, not an iterator."
    )


def full_batches(data: Iterable[Any], task: Task) -> Iterable[Any]:
    """The same batches without a last one that is smaller than the first."""
    return data.full() if isinstance(data, Batches) else FullBatches(data, task)


def _index(tensor: Tensor, index: Tensor) -> Tensor:
    # sixteen times faster than tensor[index] for bytes
    with using_threads(1):
        return tensor.index_select(0, index.to(tensor.device))


def num_batches(data: Iterable[Any]) -> int | None:
    """The number of batches; None: not known."""
    try:
        return len(data)  # type: ignore[arg-type]
    except TypeError:  # a DataLoader over a stream has a `__len__` that raises
        return None
