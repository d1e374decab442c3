"""The batches of many networks, stacked so that one step sees them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from lowland.core.data import map_tensors, move, nbytes, tensors
from lowland.errors import DataError
from lowland.train.batches import Batches

_BLOCK = 1 << 23  # bytes of examples that are gathered at once: several batches, and still in cache


class MemberBatches:
    """Batches (M, B, ...) of M networks, each with a mask (M, B) of the examples that count; None:
    all of them."""

    def __init__(self, data: Sequence[Batches], *, device: torch.device) -> None:
        for m, one in enumerate(data):
            if not isinstance(one, Batches):
                raise DataError(f"network {m}: expected a Batches, got {type(one).__name__}.")
            if one.batch_size != data[0].batch_size or len(one) != len(data[0]):
                raise DataError(
                    f"network {m} has {one.num_examples} examples in {len(one)} batches of "
                    f"{one.batch_size}, network 0 {data[0].num_examples} in {len(data[0])} of "
                    f"{data[0].batch_size}: side by side, all need as many batches of one size; "
                    "use drop_last=True, or splits of as many examples."
                )
        self.data = list(data)
        self.device = device
        self.size = data[0].batch_size
        self.examples_per_epoch = [min(len(one) * one.batch_size, one.num_examples) for one in data]
        self.ragged = len(set(self.examples_per_epoch)) > 1
        self.resident = all(one.resident and one.transform is None for one in data)
        if self.ragged and not self.resident:
            raise DataError(
                f"splits of {min(self.examples_per_epoch)} to {max(self.examples_per_epoch)} "
                "examples can be trained side by side as tensors, without a transform; use "
                "drop_last=True, or splits of as many examples."
            )
        if self.resident:
            self._concatenate()

    def _concatenate(self) -> None:
        """One tensor for all examples; data that networks share are in it once."""
        unique = {id(one.data): one for one in self.data}
        columns = [list(tensors(one.data)) for one in unique.values()]
        if len({tuple((c.shape[1:], c.dtype) for c in column) for column in columns}) != 1:
            raise DataError("side by side all examples must have the same shapes and dtypes.")
        starts = dict(
            zip(
                unique,
                accumulate((u.num_examples for u in unique.values()), initial=0),
                strict=False,
            )
        )
        self.offsets = torch.tensor([starts[id(one.data)] for one in self.data])[:, None]  # (M, 1)
        self.columns = [
            (parts[0] if len(parts) == 1 else torch.cat(parts)).to(self.device)
            for parts in zip(*columns, strict=True)
        ]
        example = sum(nbytes(column[:1]) for column in self.columns) * len(self.data)
        self.block = max(_BLOCK // (example * self.size), 1) * self.size  # whole batches

    def __len__(self) -> int:
        return len(self.data[0])

    def epoch(self, number: int, *, start: int = 0) -> Iterator[tuple[Any, Tensor | None]]:
        if not self.resident:
            yield from self._one_by_one(number, start)
            return
        order, keep = self._order(number, start * self.size)
        many = len(self.data)
        for block, mask in zip(order.split(self.block, 1), keep.split(self.block, 1), strict=True):
            index = block.reshape(-1)
            columns = [c.index_select(0, index).unflatten(0, (many, -1)) for c in self.columns]
            for first in range(0, block.shape[1], self.size):
                part = slice(first, first + self.size)
                parts = iter([c[:, part] for c in columns])
                batch = map_tensors(self.data[0].data, lambda _, parts=parts: next(parts))
                padded = self.ragged and not bool(mask[:, part].all())
                yield batch, mask[:, part] if padded else None

    def _order(self, number: int, start: int) -> tuple[Tensor, Tensor]:
        """The examples of an epoch from `start` on, and which of them count: (M, N) both."""
        orders = [
            one.order(number)[start:stop]
            for one, stop in zip(self.data, self.examples_per_epoch, strict=True)
        ]
        # shorter ones are padded with the first example of their data
        order = nn.utils.rnn.pad_sequence(orders, batch_first=True) + self.offsets
        lengths = torch.tensor([len(one) for one in orders])[:, None]
        keep = torch.arange(order.shape[1]) < lengths
        return order.to(self.device), keep.to(self.device)

    def _one_by_one(self, number: int, start: int) -> Iterator[tuple[Any, None]]:
        epochs = [one.epoch(number, start=start) for one in self.data]
        for batches in zip(*epochs, strict=True):
            columns = zip(*(tensors(batch) for batch in batches), strict=True)
            stacked = iter([torch.stack(column) for column in columns])
            batch = map_tensors(batches[0], lambda _, stacked=stacked: next(stacked))
            yield move(batch, self.device), None

    def settings(self) -> dict[str, Any]:
        """What must be the same for a run to continue."""
        first = self.data[0]
        return {
            "networks": len(self.data),
            "batch_size": self.size,
            "drop_last": first.drop_last,
            "examples": [one.num_examples for one in self.data],
            "content": [one.content_hash() for one in self.data],
            "shuffle": [one.shuffle for one in self.data],
            "seeds": [one.seed for one in self.data],
        }
