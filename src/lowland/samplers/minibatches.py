"""The log-likelihood in a subspace from one batch at a time, for SGLD and minibatch fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from torch import Tensor

from lowland.core import EvalOptions, LossSurface
from lowland.core.data import ReplayableLoader, move
from lowland.core.seeds import seed_for
from lowland.errors import DataError
from lowland.evaluate.likelihood import LogLikelihood
from lowland.geometry import Shape


class Minibatches:
    """Unbiased estimates of the log-likelihood and its gradient from one batch of the loader.

    Where the data fit in memory, the seed and the step's number alone pick the batch of a step from
    all n, so that a resumed run takes the same ones. Other data are read pass after pass, see
    `Stream`. In both cases a batch counts n times.
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
        self.loader = surface.replayable(loader, count=options.count)
        self.options = options
        self._resident: list[LogLikelihood] | None = None
        self._stream: Stream | None = None
        self._plans: dict[str, Any] = {}  # of the first batch, for all

    def __call__(self, z: Tensor, step: int) -> tuple[Tensor, Tensor]:
        if self._resident is None and self._stream is None:
            batches = self.loader.resident()
            if batches is None:
                self._stream = Stream(self.loader)
            else:
                self._resident = [self._likelihood(batch) for batch in batches]
        if self._resident is not None:
            count = len(self._resident)
            number = seed_for("minibatches", self.seed, step)
            likelihood = self._resident[number % count]
        else:
            assert self._stream is not None
            count = len(self._stream)
            likelihood = self._likelihood(self._stream.at(step))
        value, gradient = likelihood.value_and_grad(self.sub, z)
        plans = likelihood.state_dict()["plans"]
        if plans != self._plans:
            self.load_state_dict({"plans": plans})
        return count * value, count * gradient

    def state_dict(self) -> dict[str, Any]:
        """The execution plans of batches, with which a later process computes the same bits."""
        return {"plans": self._plans}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the plans of a `state_dict`."""
        self._plans = state["plans"]
        for likelihood in self._resident or ():
            likelihood.load_state_dict({"plans": self._plans, "seen": {}})

    def _likelihood(self, batch: Any) -> LogLikelihood:
        # traced evaluation has no gradients
        likelihood = LogLikelihood(self.surface, loader=[batch], trace=False, options=self.options)
        likelihood.load_state_dict({"plans": self._plans, "seen": {}})
        return likelihood


class Stream:
    """The batches of a loader as they are read, one a step, pass after pass.

    Step t takes batch t mod n of pass t // n. `Batches` can begin at any step; another loader
    begins the pass and skips the batches before. Where such a loader shuffles, a resumed run reads
    other examples than an uninterrupted one.

    Raises:
        DataError: a pass with fewer batches than the first.

    >>> import torch
    >>> from lowland.core import Regression
    >>> loader = ReplayableLoader(
    ...     [[i, i] for i in torch.eye(3).split(1)], Regression(), device="cpu"
    ... )
    >>> stream = Stream(loader)
    >>> len(stream), [stream.at(step).target.argmax().item() for step in (0, 1, 2, 3, 2)]
    (3, [0, 1, 2, 0, 2])
    """

    def __init__(self, loader: ReplayableLoader) -> None:
        self.loader = loader
        sized = loader.count is None and hasattr(loader.loader, "__len__")
        self.batches = len(loader.loader) if sized else sum(1 for _ in loader.batches())  # type: ignore[arg-type]
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
                f"the loader has fewer than the {self.batches} batches of its first pass, "
                "or of its length; pass a loader that replays its examples."
            )
        self._next = step + 1
        return batch

    def _pass(self, number: int, start: int) -> Iterator[Any]:
        loader = self.loader
        if loader.count is not None or not hasattr(loader.loader, "epoch"):
            yield from islice(loader.batches(), start, None)
            return
        for raw in loader.loader.epoch(number, start=start):
            yield move(loader.task.parts(raw), loader.device, channels_last=loader.channels_last)
