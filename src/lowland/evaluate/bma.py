"""The streaming Bayesian model average: O(N C) memory, whatever the number of samples."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lowland.core import Classification, LossSurface, Regression, Task
from lowland.core.data import map_tensors
from lowland.core.language import next_tokens
from lowland.core.task import wide
from lowland.errors import ConfigError, DataError, NonFiniteError
from lowland.evaluate.errors import ErrorCurve, running_sums, some
from lowland.evaluate.evaluator import points_of, run
from lowland.evaluate.metrics import (
    labelled_fields,
    language,
    log_scale,
    of_likelihood,
    scatter,
)
from lowland.progress import Progress
from lowland.records import Predictive

_NARROW = 32  # classes up to which rows go last
KEEPS = ("probs", "target", "none", "nll")


def predict(
    surface: LossSurface,
    post: Any,
    loader: Iterable[Any] | None = None,
    *,
    samples: int | None = None,
    seed: int = 0,
    keep: str = "probs",
    batchnorm: str = "refresh",
    count: int | None = None,
    strategy: str | None = None,
    chunk: int | None = None,
    progress: Progress = False,
) -> Predictive:
    r"""\(p(y|x) \approx \frac1S \sum_s p(y|x, w_s)\), \(w_s\) from a posterior over weights.

    Probabilities are averaged, never logits; log-likelihoods by logsumexp over samples; for
    regression the mixture of Gaussians is kept by its mean and total variance, and its exact
    density at the target.

    Args:
        surface: model, task and the rows for BatchNorm statistics.
        post: a posterior, moments such as `SWAG`, weights (P,) or (n, P), or an iterable of (P,).
        loader: rows to predict; rows without targets are fine. None: the surface's own.
        samples: draws; None: 30, or every member where there are finitely many.
        seed: of the draws.
        keep: "probs" keeps everything; "target" one number an item and row; "none" the metrics;
            "nll" does not average probabilities in the first place: the metrics are those of the
            likelihood, and a language model's vocabulary is not held for every token.
        batchnorm: "refresh" re-estimates statistics for every draw, "frozen" does not.
        count: rows to read, for loaders without an end.
        strategy: "points" one after the other, "batches" each for a chunk of points, "vmap" a
            chunk at once; None: what is found to be fastest. chunk: points that go together.
        progress: True for a bar, or a callable of (done, total).

    Raises:
        DataError: an empty or changing loader, labels out of range. LayoutError: weights of
            another model. NonFiniteError: a draw whose loss is NaN or infinite.

    >>> from torch import nn
    >>> net = nn.Linear(1, 2, bias=False)
    >>> rows = [(torch.ones(1, 1), torch.tensor([0]))]
    >>> surface = LossSurface(net, Classification(), rows)
    >>> pred = predict(surface, [torch.tensor([0.0, 0.0]), torch.tensor([100.0, 0.0])])
    >>> pred.probs, round(pred.metrics()["nll"], 4)  # -log(3/4)
    (tensor([[0.7500, 0.2500]]), 0.2877)
    """
    if keep not in KEEPS:
        raise ConfigError(f"keep: expected one of {', '.join(KEEPS)}, got {keep!r}.")
    points, total = points_of(post, samples, seed)
    example = surface.data.first
    average = Average(surface.task, example=example, likelihood_only=keep == "nll", errors_too=True)
    run(
        surface,
        points,
        loader,
        average,
        total=total,
        batchnorm=batchnorm,
        strategy=strategy,
        chunk=chunk,
        count=count,
        progress=progress,
        label="predict",
    )
    return average.predictive(keep)


class Average:
    """Running means over samples of a task's statistics, and the likelihood's logsumexp.

    A `Sink`: what it holds is one tensor a statistic and batch.
    """

    whole = False

    def __init__(
        self,
        task: Task,
        *,
        example: Callable[[], Any] | None = None,
        likelihood_only: bool = False,
        errors_too: bool = False,
    ) -> None:
        self.task = task
        # of the first s samples, for each s
        self.errors = ErrorCurve() if errors_too and isinstance(task, Classification) else None
        # a regression's moments are small, and say how many targets there are
        self.likelihood_only = likelihood_only and not isinstance(task, Regression)
        self.example = example  # gives a labelled batch, for rows without labels
        self.samples = 0
        self._sums: list[dict[str, Tensor]] = []  # by batch
        self._log_sums: list[Tensor | None] = []  # logsumexp of log-likelihoods, (items,)
        self._targets: list[Any] = []
        self._masks: list[Tensor | None] = []
        self._curve: list[float] = []
        self._partial: Tensor | None = None  # (n,) of the chunk under way
        self._unlabelled: Tensor | None = None  # (n,): a sum that shows what is not finite
        self._items = 0

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        self.task = settled(self.task, outputs, target, self.example)
        log_probs = None if target is None else -likelihoods(self.task, outputs, target)
        statistics = {} if self.likelihood_only else over_points(self.task.statistics, outputs)
        self.take(index, statistics, log_probs, target)

    def take(
        self,
        index: int,
        statistics: dict[str, Tensor],  # (n, B, ...) each
        log_probs: Tensor | None,  # (n, items)
        target: Any,
    ) -> None:
        """What `add` does, with the task's part of the work done."""
        task = self.task
        if isinstance(task, Regression):
            before = self._sums[index]["mean"] if index < len(self._sums) else None
            apart = scatter(statistics["mean"], before, self.samples)
            statistics = statistics | {"scatter": apart.unsqueeze(0)}
        sums: dict[str, Tensor] = {}
        labelled = isinstance(target, Tensor) and "probs" in statistics
        if labelled and self.errors is not None and isinstance(task, Classification):
            probs = statistics["probs"]
            sums["probs"] = self._with_errors(self.errors, task, index, probs, target)
        if index == len(self._sums):
            sums |= {name: v.sum(0) for name, v in statistics.items() if name not in sums}
            self._sums.append({name: sums[name] for name in statistics})
            tokens = language(task) and isinstance(target, Tensor)
            self._targets.append(next_tokens(target) if tokens else target)
            self._masks.append(None if target is None else some(task.valid(target)))
            self._log_sums.append(None)
        else:
            for name, values in statistics.items():
                if name in sums:
                    self._sums[index][name] = sums[name]
                else:
                    self._sums[index][name] += values.sum(0) if len(values) > 1 else values[0]
        if len({kept is None for kept in self._targets}) > 1:
            raise DataError("some batches have targets and some have none; give all, or none.")
        if log_probs is None:
            for values in statistics.values():
                part = values.flatten(1).sum(1, dtype=torch.float64)
                self._unlabelled = part if self._unlabelled is None else self._unlabelled + part
            return
        if log_probs.shape[0] > 1:
            log_probs = log_probs.logcumsumexp(0)
        before = self._log_sums[index]
        if before is not None:
            log_probs = torch.logaddexp(before, log_probs)
        self._log_sums[index] = log_probs[-1].clone()  # without the other rows
        mask = self._masks[index]
        valid = log_probs if mask is None else log_probs[:, mask]
        part = valid.sum(1, dtype=torch.float64)
        self._partial = part if self._partial is None else self._partial + part
        if self.samples == 0:
            self._items += valid.shape[1]

    def _with_errors(
        self, errors: ErrorCurve, task: Classification, index: int, probs: Tensor, target: Tensor
    ) -> Tensor:
        """The sum of probabilities with n samples more, each of which is counted on its way."""
        before = self._sums[index]["probs"] if index < len(self._sums) else None
        sums = running_sums(before, probs)
        errors.add(task, index, sums, target)
        return sums[-1].clone() if len(sums) > 1 else sums[0]  # without the others

    def end(self, first: int, n: int) -> None:
        self.samples += n
        if self._unlabelled is not None:
            finite = torch.isfinite(self._unlabelled)
            self._unlabelled = None
            if not bool(finite.all()):
                raise _not_finite(first + int(finite.long().argmin()), "outputs that are NaN")
        if self._partial is None:
            return
        if self.errors is not None:
            self.errors.end()
        counts = torch.arange(first + 1, first + n + 1, dtype=torch.float64)
        curve = counts.log() - self._partial.cpu() / self._items
        self._partial = None
        for draw, value in enumerate(curve.tolist(), start=first):
            if not math.isfinite(value):
                raise _not_finite(draw, f"a loss of {value}")
            self._curve.append(value)

    def averages(self) -> dict[str, Tensor]:
        """Means over samples, all rows; the variance of a regression is the total."""
        joined = {
            name: _joined([part[name] for part in self._sums], classes=name == "probs")
            for name in self._sums[0]
        }
        means = {name: values.div_(self.samples) for name, values in joined.items()}
        if isinstance(self.task, Regression):
            means["variance"] += means.pop("scatter")
        return means

    def log_prob(self) -> Tensor | None:
        """Log of the mean likelihood of the items that count."""
        parts = []
        for values, mask in zip(self._log_sums, self._masks, strict=True):
            if values is None:
                return None
            parts.append(values if mask is None else values[mask])
        return torch.cat(parts) - math.log(self.samples)

    def target(self) -> Tensor | None:
        """The targets of all rows, where they are tensors; of language models, next tokens."""
        if any(not isinstance(target, Tensor) for target in self._targets):
            return None
        if not isinstance(self.task, Classification) and _ragged(self._targets):
            return None
        return _joined(self._targets)

    def predictive(self, keep: str = "probs") -> Predictive:
        """The record of what was averaged."""
        task = self.task
        averages, log_prob, target = self.averages(), self.log_prob(), self.target()
        found: dict[str, Any] = {}
        if log_prob is not None:
            shift = log_scale(task, averages)
            found["nll_by_samples"] = torch.tensor(self._curve, dtype=torch.float64) + shift
            if self.errors is not None and self.errors.values:
                errors = torch.tensor(self.errors.values, dtype=torch.float64)
                found["error_by_samples"] = errors
            if target is None or self.likelihood_only:
                found["figures"] = of_likelihood(task, log_prob)
            else:
                found |= labelled_fields(task, averages, log_prob, target)
            log_prob = log_prob - shift
        if keep in ("probs", "target"):
            found |= {"target_log_prob": log_prob, **_information(task, averages)}
        if keep == "probs":
            found |= {"probs": averages.get("probs"), "targets": target}
            if isinstance(task, Regression):
                found |= _in_units(task, averages, target)
        found["task"] = task.to_dict()
        return Predictive(task.kind, self.samples, **map_tensors(found, Tensor.cpu))


def settled(
    task: Task, outputs: Tensor, target: Any, example: Callable[[], Any] | None = None
) -> Task:
    """The task with the form that the targets show: probabilities alone cannot tell labels that
    exclude one another from labels that do not. Rows without targets go by an example that has
    them."""
    if not isinstance(task, Classification) or task.form is not None:
        return task
    form = None
    if target is not None:
        form = task.form_of(outputs[0], target)
    elif example is not None and outputs.ndim >= 3 and outputs.shape[2] > 1:
        shown = example().target
        labels = isinstance(shown, Tensor) and shown.is_floating_point()
        form = "multilabel" if labels and shown.shape[1:] == outputs.shape[2:] else "multiclass"
    task = copy.copy(task)
    task.form = form
    return task


def likelihoods(task: Task, outputs: Tensor, target: Any) -> Tensor:
    """Negative log-likelihoods (n, items) of outputs (n, B, ...)."""
    plain = type(task) is Classification and task.form == "multiclass" and outputs.ndim == 3
    if plain and outputs.shape[2] <= _NARROW and not outputs.is_cuda:
        return _narrow(task, outputs, target)  # type: ignore[arg-type]
    found: Tensor = over_points(lambda output: task.items_nll(output, target), outputs)
    return found


def _narrow(task: Classification, outputs: Tensor, target: Tensor) -> Tensor:
    """The same for few classes (n, B, C), of all points at once.

    torch's softmax on a CPU goes along the classes value by value; with rows last it goes along
    these, ten times as fast for ten classes.
    """
    task.form_of(outputs[0], target)  # the shapes are those of the task
    labels = target.long().expand(len(outputs), -1)
    rows_last = wide(outputs).mT.contiguous()  # (n, C, B)
    found: Tensor = F.cross_entropy(
        rows_last, labels, ignore_index=task.ignore_index, reduction="none"
    )
    return found


def over_points(function: Callable[[Tensor], Any], outputs: Tensor) -> Any:
    """A tensor, or tensors by name, for each of n outputs: stacked, (n, ...)."""
    if len(outputs) > 1:
        with contextlib.suppress(RuntimeError):  # a task of the user's may look at values
            return torch.func.vmap(function)(outputs)
    each = [function(output) for output in outputs]
    if isinstance(each[0], Tensor):
        return torch.stack(each)
    return {name: torch.stack([one[name] for one in each]) for name in each[0]}


def _joined(parts: list[Tensor], *, classes: bool = False) -> Tensor:  # (N_i, ...) each
    """All rows; where batches are of several image sizes, a row a position."""
    if not _ragged(parts):
        return torch.cat(parts)
    if classes:
        return torch.cat([part.movedim(1, -1).reshape(-1, part.shape[1]) for part in parts])
    return torch.cat([part.reshape(-1) for part in parts])


def _ragged(parts: list[Tensor]) -> bool:
    return len({part.shape[1:] for part in parts}) > 1


def _not_finite(draw: int, what: str) -> NonFiniteError:
    return NonFiniteError(
        f"draw {draw} has {what}; lower the posterior's scale, or look at the training run."
    )


def _information(task: Task, averages: dict[str, Tensor]) -> dict[str, Tensor]:
    """Entropy of the average, and its excess over the average entropy: the mutual information."""
    if "probs" not in averages or "expected_entropy" not in averages:
        return {}
    probs = averages["probs"]
    entropy = task.entropy(probs)
    information = (entropy - averages["expected_entropy"]).clamp_min(0)  # negative by rounding
    return {"entropy": entropy, "mutual_information": information}


def _in_units(
    task: Regression, averages: dict[str, Tensor], target: Tensor | None
) -> dict[str, Tensor | None]:
    mean, variance = averages["mean"], averages["variance"]
    shift, std = task.target_mean.to(mean.device), task.target_std.to(mean.device)
    return {
        "mean": mean * std + shift,
        "variance": variance * std**2,
        "targets": None if target is None else target.double() * std + shift,
    }
