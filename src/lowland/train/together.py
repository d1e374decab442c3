"""Training many small networks side by side: one step does what M steps would."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lowland.core import Task
from lowland.core.data import map_tensors, move, nbytes, tensors
from lowland.errors import ConfigError, DataError, NonFiniteError
from lowland.records import TrainingLog
from lowland.train.batches import Batches
from lowland.train.members import Members
from lowland.train.options import Collects, TrainKeywords, TrainOptions
from lowland.train.run import Run

_BLOCK = 1 << 23  # bytes of rows that are gathered at once: several batches, and still in cache


def sgd_members(
    members: Members,
    task: Task,
    data: Sequence[Batches],
    *,
    epochs: int,
    collectors: Sequence[Collects] = (),
    diverged: str = "stop",
    **options: Unpack[TrainKeywords],
) -> list[TrainingLog]:
    r"""What `sgd` does for one network, for M at once: \(\nabla_W \sum_m L_m(w_m)\) in one pass.

    Row m of the gradient of the sum is the gradient of network m alone, so that each network goes
    where `sgd` would take it, to rounding: with its own weights, rows and order of batches. For
    networks whose steps take less time than launching their operations; on a CPU one thread is
    fastest (`torch.set_num_threads(1)`). Dropout draws other noise than `sgd` does; BatchNorm
    normalises by the batch and keeps no statistics, which are refreshed afterwards. Layers that
    keep statistics of their own, and spectral norm, are refused.

    Args:
        members: what to train, in place. task: the likelihood.
        data: a `Batches` a network, of equally many batches; where the last ones differ in size,
            as those of cross-validation may, they are filled up with rows that do not count.
            Those that share one object of data share its memory.
        epochs: passes over the data.
        collectors: see `Collector`, with targets of `ParamLayout(members)`; `members.split` gives
            each network its part.
        diverged: "stop" raises where a network's loss is NaN or infinite; "drop" sets its weights
            to 0, holds them, and goes on with the others: its losses are NaN from then on.
        options: `TrainOptions`, or keyword arguments with the names of its fields, precision,
            memory format and compilation apart. The optimizer is made from the one parameter (M,
            P); its rule must act on each weight alone, as SGD's and Adam's do. The norm that is
            clipped is that of each network's gradient.

    Returns:
        A log a network, with its share of the time.

    Raises:
        NonFiniteError: which networks diverged, and when. DataError: batches that cannot be
            stacked. ConfigError: a checkpoint of a run with other settings.

    >>> from lowland.core import Regression
    >>> x = torch.linspace(-1, 1, 32)[:, None]
    >>> members = Members(nn.Linear(1, 1) for _ in range(2))
    >>> data = [Batches((x, slope * x), batch_size=8) for slope in (2.0, -3.0)]
    >>> logs = sgd_members(members, Regression(noise_variance=1.0), data, epochs=50)
    >>> members.weights[:, 0].detach().round(decimals=2), len(logs)
    (tensor([ 2., -3.]), 2)
    """
    train = TrainOptions().override(**options)
    train.require_default(
        "autocast",
        "channels_last",
        "compile",
        instead="networks side by side are trained without; train them one by one, with ll.sgd",
    )
    if diverged not in ("stop", "drop"):
        raise ConfigError(f"diverged: expected 'stop' or 'drop', got {diverged!r}.")
    if len(data) != len(members):
        raise DataError(f"expected a Batches for each of {len(members)} networks, got {len(data)}.")
    if train.drop_last:
        data = [one.whole() if isinstance(one, Batches) else one for one in data]
    stack = _Stack(data, device=members.weights.device)
    if stack.ragged and any(isinstance(m, _BatchNorm) for m in members.template.module.modules()):
        raise DataError(
            f"the splits have {min(stack.used)} to {max(stack.used)} rows, and BatchNorm would see "
            "the rows that fill up the last batch; use drop_last=True, or splits of as many rows."
        )
    task = task.for_model(members.template.module)
    members.require_no_state(task, next(iter(data[0].epoch(0))))
    run = _Together(
        members,
        task,
        stack,
        replace(train, drop_last=False),  # done above, split by split
        epochs=epochs,
        collectors=collectors,
        diverged=diverged,
    )
    run.to_the_end()
    return run.logs()


class _Together(Run):
    """A run whose losses are (M,)."""

    model: Members
    data: Any  # a `_Stack`

    def __init__(self, *rest: Any, diverged: str, **more: Any) -> None:
        self.diverged = diverged
        super().__init__(*rest, **more)
        if self.needs_closure:
            raise self._closure_refused()
        many = len(self.model)
        self.partial |= {"loss": torch.zeros(many, dtype=torch.float64)}
        self.columns = {"loss": torch.zeros(0, many, dtype=torch.float64)}
        self.dead = torch.zeros(many, dtype=torch.bool)

    def _closure_refused(self) -> ConfigError:
        return ConfigError(
            f"optimizer: {type(self.optimizer).__name__} evaluates the loss again within a step, "
            "by all weights at once, and networks side by side would see each other; train them "
            "one by one, with ll.sgd."
        )

    def _batches(self) -> Iterator[Any]:
        yield from self.data.epoch(self.epoch, start=self.batch)

    def _backward(self, batch: Any) -> None:
        batch, keep = batch
        losses, items, outputs = self.model.losses(self.task, batch, keep)
        if self.epoch == 0:
            self._check(batch, outputs.detach())
        found = losses.detach()
        lost = ~torch.isfinite(found).cpu() & ~self.dead
        if bool(lost.any()):
            self._lose(lost, f"the loss is {float(found[int(lost.int().argmax())])}")
        self.partial["loss"] += (found.double() * items).cpu()
        self.partial["items"] = self.partial["items"] + items.cpu().double()
        # a NaN stays in its row: nothing that follows mixes rows
        (losses.sum() / self.options.accumulate).backward()

    def _check(self, batch: Any, outputs: Tensor) -> None:
        alive = torch.isfinite(outputs).flatten(1).all(1) & ~self.dead.to(outputs.device)
        if bool(alive.any()):

            def as_one_batch(tensor: Tensor) -> Tensor:  # (M, B, ...), of all networks
                return tensor[alive].flatten(0, 1)

            target = self.task.parts(map_tensors(batch, as_one_batch)).target
            self.task.check(as_one_batch(outputs), target)

    def _lose(self, lost: Tensor, what: str) -> None:
        which = lost.nonzero().flatten().tolist()
        if self.diverged == "stop":
            some = ", ".join(map(str, which[:5])) + ("..." if len(which) > 5 else "")
            raise NonFiniteError(
                f"{what} in network {some} of {len(self.model)} at step {self.step + 1} (epoch "
                f"{self.epoch + 1}, batch {self.batch + 1}); lower the learning rate, or go on "
                "without with diverged='drop'. The last checkpoint and the iterates stored before "
                "it are whole."
            )
        self.dead |= lost

    @torch.no_grad()
    def _apply(self, waiting: int) -> None:
        weights = self.model.weights
        if waiting < self.options.accumulate and weights.grad is not None:
            weights.grad.mul_(self.options.accumulate / waiting)  # the last batches of an epoch
        if self.options.clip is not None and weights.grad is not None:
            norms = weights.grad.norm(dim=1, keepdim=True)  # (M, 1)
            weights.grad.mul_((self.options.clip / (norms + 1e-6)).clamp_max(1.0))
        try:
            self.optimizer.step()
        except Exception as error:
            missing = any(word in str(error) for word in ("closure", "NoneType"))
            if self.needs_closure is False or not missing:
                raise
            raise self._closure_refused() from error
        self.needs_closure = False
        if self.schedule is not None:
            self.schedule.step()
        self._bury(weights)
        # a finite loss may still have a gradient that overflows; a sum is one read of all weights
        if not math.isfinite(float(weights.sum())):
            lost = ~torch.isfinite(weights).all(1).cpu()
            if bool(lost.any()):
                self._lose(lost, "weights are NaN or infinite")
                self._bury(weights)
        self.step += 1
        for collector in self.collectors:
            collector.step(self.model)

    def _bury(self, weights: Tensor) -> None:
        if bool(self.dead.any()):
            weights[self.dead.to(weights.device)] = 0.0

    def _look(self) -> None:
        """Losses are looked at before each step."""

    def _close_epoch(self) -> None:
        row = self.partial["loss"] / self.partial["items"]
        row[self.dead] = math.nan
        self.columns["loss"] = torch.cat([self.columns["loss"], row[None]])
        for name, value in (
            ("epoch", self.epoch + 1.0),
            ("lr", float(self.optimizer.param_groups[0]["lr"])),
            ("seconds", self.partial["seconds"]),
        ):
            self.columns.setdefault(name, []).append(value)
        self.partial = {"loss": torch.zeros_like(row), "items": 0.0, "seconds": 0.0}
        self.epoch += 1
        self.batch = 0

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {
            "data": self.data.settings(),
            "diverged": self.diverged,
        }

    def _state(self) -> dict[str, Any]:
        return super()._state() | {"dead": self.dead}

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        self.dead = state["dead"]

    def logs(self) -> list[TrainingLog]:
        many = len(self.model)
        columns = {
            name: torch.as_tensor(values, dtype=torch.float64)
            for name, values in self.columns.items()
        }
        columns["seconds"] = columns["seconds"] / many
        losses = columns.pop("loss")
        return [
            TrainingLog({"epoch": columns["epoch"], "loss": losses[:, m]} | columns)
            for m in range(many)
        ]


class _Stack:
    """The batches of M networks as batches (M, B, ...), each with the rows that count, or None."""

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
        self.used = [
            min(len(one) * one.batch_size, one.num_examples) for one in data
        ]  # rows an epoch
        self.ragged = len(set(self.used)) > 1
        self.resident = all(one.resident and one.transform is None for one in data)
        if self.ragged and not self.resident:
            raise DataError(
                f"splits of {min(self.used)} to {max(self.used)} rows can be trained side by side "
                "as tensors, without a transform; use drop_last=True, or splits of as many rows."
            )
        if self.resident:
            self._join()

    def _join(self) -> None:
        """One tensor for all rows; data that networks share are there once."""
        unique = {id(one.data): one for one in self.data}
        columns = [list(tensors(one.data)) for one in unique.values()]
        if len({tuple((c.shape[1:], c.dtype) for c in column) for column in columns}) != 1:
            raise DataError("side by side all rows must have the same shapes and dtypes.")
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
        row = sum(nbytes(column[:1]) for column in self.columns) * len(self.data)
        self.block = max(_BLOCK // (row * self.size), 1) * self.size  # whole batches

    def __len__(self) -> int:
        return len(self.data[0])

    def epoch(self, number: int, *, start: int = 0) -> Iterator[tuple[Any, Tensor | None]]:
        if not self.resident:
            yield from self._one_by_one(number, start)
            return
        order, keep = self._order(number, start * self.size)
        many = len(self.data)
        for block, kept in zip(order.split(self.block, 1), keep.split(self.block, 1), strict=True):
            index = block.reshape(-1)
            found = [c.index_select(0, index).unflatten(0, (many, -1)) for c in self.columns]
            for first in range(0, block.shape[1], self.size):
                part = slice(first, first + self.size)
                parts = iter([c[:, part] for c in found])
                batch = map_tensors(self.data[0].data, lambda _, parts=parts: next(parts))
                some = self.ragged and not bool(kept[:, part].all())
                yield batch, kept[:, part] if some else None

    def _order(self, number: int, start: int) -> tuple[Tensor, Tensor]:
        """The rows of an epoch from row `start` on, and which of them count: (M, rows) both."""
        orders = [
            one.order(number)[start:used] for one, used in zip(self.data, self.used, strict=True)
        ]
        # shorter ones are filled up with row 0 of their data
        order = nn.utils.rnn.pad_sequence(orders, batch_first=True) + self.offsets
        lengths = torch.tensor([len(one) for one in orders])[:, None]
        keep = torch.arange(order.shape[1]) < lengths
        return order.to(self.device), keep.to(self.device)

    def _one_by_one(self, number: int, start: int) -> Iterator[tuple[Any, None]]:
        epochs = [one.epoch(number, start=start) for one in self.data]
        for batches in zip(*epochs, strict=True):
            columns = zip(*(tensors(batch) for batch in batches), strict=True)
            joined = iter([torch.stack(column) for column in columns])
            batch = map_tensors(batches[0], lambda _, joined=joined: next(joined))
            yield move(batch, self.device), None

    def settings(self) -> dict[str, Any]:
        """What must be the same for a run to continue."""
        first = self.data[0]
        return {
            "networks": len(self.data),
            "batch_size": self.size,
            "drop_last": first.drop_last,
            "rows": [one.num_examples for one in self.data],
            "content": [one.content() for one in self.data],
            "shuffle": [one.shuffle for one in self.data],
            "seeds": [one.seed for one in self.data],
        }
