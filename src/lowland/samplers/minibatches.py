"""The log-likelihood in a subspace by one batch at a time: what SGLD and minibatch fits ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from torch import Tensor

from lowland.core import EvalOptions, LossSurface
from lowland.core.data import ReplayableLoader, move
from lowland.core.seeds import seed_for
from lowland.errors import DataError
from lowland.evaluate.engine import replayable_loader
from lowland.evaluate.likelihood import LogLikelihood
from lowland.geometry import Shape


class Minibatches:
    """Unbiased estimates of the log-likelihood and its gradient from one batch of the loader.

    Of data that fit in memory, the batch of a step is drawn from all n of them by the seed and the
    step's number alone, so that a stopped run goes on with the same. Others are gone through pass
    after pass, see `Stream`. Either way a batch counts n times.
    """

    def __init__(
        self,
        sub: Shape,
        surface: LossSurface,
        loader: Iterable[Any] | None,
        *,
        options: EvalOptions,
        seed: int,
    ) -> None:
        self.sub, self.surface, self.seed = sub, surface, seed
        self.rows = replayable_loader(surface, loader, count=options.count)
        self.options = options
        self._held: list[LogLikelihood] | None = None
        self._stream: Stream | None = None
        self._plans: dict[str, Any] = {}  # of all batches, as of the first

    def __call__(self, z: Tensor, step: int) -> tuple[Tensor, Tensor]:
        if self._held is None and self._stream is None:
            held = self.rows.resident()
            if held is None:
                self._stream = Stream(self.rows)
            else:
                self._held = [self._likelihood(batch) for batch in held]
        if self._held is not None:
            several = len(self._held)
            number = seed_for("minibatches", self.seed, step)
            one = self._held[number % several]
        else:
            assert self._stream is not None
            several = len(self._stream)
            one = self._likelihood(self._stream.at(step))
        value, gradient = one.value_and_grad(self.sub, z)
        plans = one.state_dict()["plans"]
        if plans != self._plans:
            self.load_state_dict({"plans": plans})
        return several * value, several * gradient

    def state_dict(self) -> dict[str, Any]:
        """How batches were planned: what makes values of a later process the same bit by bit."""
        return {"plans": self._plans}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on as what `state_dict` is of."""
        self._plans = state["plans"]
        for one in self._held or ():
            one.load_state_dict({"plans": self._plans, "seen": {}})

    def _likelihood(self, batch: Any) -> LogLikelihood:
        # of gradients there is nothing to trace
        found = LogLikelihood(self.surface, loader=[batch], trace=False, options=self.options)
        found.load_state_dict({"plans": self._plans, "seen": {}})
        return found


class Stream:
    """The batches of a loader as they are read, one a step, pass after pass.

    Step t has batch t mod n of pass t // n. `Batches` go on at any step with the batch that it has;
    another loader begins a pass and skips what is before, and if it shuffles by itself, a run that
    was stopped goes on with other rows than it would have had.

    Raises:
        DataError: a pass that ends before it should.

    >>> import torch
    >>> from lowland.core import Regression
    >>> rows = ReplayableLoader([[i, i] for i in torch.eye(3).split(1)], Regression(), device="cpu")
    >>> stream = Stream(rows)
    >>> len(stream), [stream.at(step).target.argmax().item() for step in (0, 1, 2, 3, 2)]
    (3, [0, 1, 2, 0, 2])
    """

    def __init__(self, rows: ReplayableLoader) -> None:
        self.rows = rows
        known = rows.count is None and hasattr(rows.loader, "__len__")
        self.batches = len(rows.loader) if known else sum(1 for _ in rows.batches())  # type: ignore[arg-type]
        self._next = -1
        self._rest: Iterator[Any] = iter(())

    def __len__(self) -> int:
        return self.batches

    def at(self, step: int) -> Any:
        """The batch of a step, on the device."""
        number, start = divmod(step, self.batches)
        if step != self._next or start == 0:
            self._rest = self._pass(number, start)
        batch = next(self._rest, None)
        if batch is None:
            raise DataError(
                f"{self.rows.name} has fewer than the {self.batches} batches of its first pass, or "
                "of its length; pass a loader that replays its rows."
            )
        self._next = step + 1
        return batch

    def _pass(self, number: int, start: int) -> Iterator[Any]:
        rows = self.rows
        if rows.count is not None or not hasattr(rows.loader, "epoch"):
            yield from islice(rows.batches(), start, None)
            return
        for raw in rows.loader.epoch(number, start=start):
            yield move(rows.task.parts(raw), rows.device, channels_last=rows.channels_last)
