"""Validation examples: the NLL of each item for every candidate, and two halves for cross-fitting.

What is fitted to validation examples, such as learned weights, has too low an NLL on them. Fitted
to one half and evaluated on the other, twice, it has an NLL for every item that is not its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from lowland import checks
from lowland.averaging.selection import select
from lowland.core import LossSurface, Point
from lowland.core.data import ReplayableLoader, is_sliceable, map_tensors
from lowland.core.options import EvalKeywords
from lowland.core.seeds import stream
from lowland.core.task import count_examples
from lowland.errors import DataError, NonFiniteError
from lowland.evaluate.batchnorm_statistics import require_training_statistics
from lowland.evaluate.planner import model_point
from lowland.evaluate.predict import predict
from lowland.progress import Report
from lowland.records import Selection


class Validation:
    """The validation examples of a choice, and how often networks were evaluated on them.

    Args:
        loader: labelled examples.
        groups: (N,), a label for each example, where examples are not independent; None: an example
            with several items, such as an image with a label per pixel, is a group.
        seed: of the halves.
        report: called with the passes over the examples so far, and `total`.
        options: see `EvalOptions`.

    Attributes:
        items: how many. groups: (items,), the group of each; None: each is independent.
        in_first_half: (items,) bool; the halves have whole groups.
        evaluations: passes of a network over the examples. gradients: the same with gradients.

    Raises:
        DataError: no examples, examples without targets, groups of another length.
    """

    def __init__(
        self,
        surface: LossSurface,
        loader: Iterable[Any],
        *,
        groups: Sequence[Any] | Tensor | None = None,
        seed: int = 0,
        report: Report = lambda done, total: None,
        total: int | None = None,
        **options: Unpack[EvalKeywords],
    ) -> None:
        if loader is None:
            raise DataError("expected validation examples, got None; give a loader of them.")
        self.surface, self.options = surface, surface.options.override(**options)
        require_training_statistics([model_point(surface)], surface, loader, self.options)
        self.data = surface.replayable(loader, count=self.options.count).cached()
        self.evaluations = self.gradients = 0.0
        self._report, self._total = report, total
        self._read_targets(groups, checks.seed(seed))

    def _read_targets(self, groups: Sequence[Any] | Tensor | None, seed: int) -> None:
        """Finds the items of each example, and splits the examples."""
        sizes, counts, sliceable = [], [], True
        for batch in self.data.batches():
            sizes.append(count_examples(batch))
            counts.append(self._items_by_example(batch, sizes[-1]))
            sliceable = sliceable and is_sliceable(batch)
        examples = sum(sizes)
        if groups is not None and len(groups) != examples:
            raise DataError(
                f"groups: expected {examples} labels, one for each validation example, got "
                f"{len(groups)}."
            )
        by_example = torch.cat(counts)
        labels = groups.tolist() if isinstance(groups, Tensor) else groups or range(examples)
        numbers: dict[Any, int] = {}
        index = torch.tensor([numbers.setdefault(label, len(numbers)) for label in labels])
        is_grouped = groups is not None or int(by_example.max()) > 1
        self.items = int(by_example.sum())
        self.groups = index.repeat_interleave(by_example) if is_grouped else None
        if not sliceable:  # then whole batches are in a half
            index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        units = int(index.max()) + 1
        order = torch.randperm(units, generator=stream("halves of validation examples", seed))
        first = torch.zeros(units, dtype=torch.bool)
        first[order[: units // 2]] = True
        self._example_in_first = first[index]
        self.in_first_half = self._example_in_first.repeat_interleave(by_example)

    def _items_by_example(self, batch: Any, size: int) -> Tensor:
        task, target = self.surface.task, batch.target
        if target is None:
            raise DataError("the validation examples have no targets; give labelled examples.")
        mask = task.valid(target)
        items = task.items(target) if mask is None else mask.numel()
        if items % size:
            raise DataError(
                f"{size} examples have {items} items, so that their examples are not known; give "
                "batches of one example."
            )
        if mask is None:
            return torch.full((size,), items // size)
        return mask.reshape(size, -1).sum(1).cpu()

    def nlls(self, post: Any, **options: Any) -> Tensor:
        """The NLL of each item, (items,) float64, of a point or of a posterior's model average;
        infinite where a network's loss is not finite. `options` go to `predict`."""
        try:
            pred = predict(
                self.surface, post, self.data, keep="target", options=self.options, **options
            )
        except NonFiniteError:
            self._count(evaluations=options.get("samples") or 1)
            return torch.full((self.items,), math.inf, dtype=torch.float64)
        assert pred.target_log_prob is not None
        self._count(evaluations=pred.samples)
        return -pred.target_log_prob.double()

    def value_and_grad(self, point: Point, half: ReplayableLoader | None) -> tuple[Tensor, Tensor]:
        """The mean NLL of a half, or of all examples, and its gradient (P,)."""
        data = half or self.data
        result = self.surface.value_and_grad(point, loader=data, batchnorm=self.options.batchnorm)
        self._count(gradients=(data.num_examples or 0) / (self.data.num_examples or 1))
        return result

    def _count(self, *, evaluations: float = 0, gradients: float = 0) -> None:
        self.evaluations += evaluations
        self.gradients += gradients
        self._report(round(self.evaluations + self.gradients), self._total)

    def halves(self) -> tuple[ReplayableLoader, ReplayableLoader]:
        """The first half, and the second.

        Raises:
            DataError: fewer than two groups, or batches that cannot be split.
        """
        parts: tuple[list[Any], list[Any]] = ([], [])
        at = 0
        for batch in self.data.batches(ordered=True):
            size = count_examples(batch)
            in_first = self._example_in_first[at : at + size]
            at += size
            for part, mask in zip(parts, (in_first, ~in_first), strict=True):
                if bool(mask.all()):
                    part.append(batch)
                elif bool(mask.any()):
                    part.append(map_tensors(batch, lambda t, m=mask: t[m.to(t.device)]))
        if not all(parts):
            raise DataError(
                "the validation examples cannot be split into halves; give at least two examples, "
                "of different groups."
            )
        first, second = (self.data.subset(part) for part in parts)
        return first, second

    def cross_fitted(self, fitted: Sequence[Tensor]) -> Tensor:
        """The NLLs (items,) on the second half of what was fitted to the first, and the reverse.

        Args:
            fitted: two NLLs (items,), of what was fitted to the first half, and to the second.
        """
        return torch.where(self.in_first_half, fitted[1], fitted[0])

    def best_of(self, nlls: Tensor) -> tuple[int, Tensor]:  # (S, items)
        """The index of the lowest mean NLL of S settings, and the NLLs (items,) of a choice that is
        made on the other half."""
        indices = [int(nlls[:, half].mean(1).argmin()) for half in self._masks()]
        return int(nlls.mean(1).argmin()), self.cross_fitted([nlls[i] for i in indices])

    def _masks(self) -> tuple[Tensor, Tensor]:
        return self.in_first_half, ~self.in_first_half

    def select(self, nlls: Mapping[str, Tensor], default: str) -> Selection:
        """The candidate by the paired rule: see `select`."""
        return select(nlls, default=default, groups=self.groups)
