"""The streaming Bayesian model average: O(N C) memory, whatever the number of samples."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lowland.core import Classification, LossSurface, Regression, Task
from lowland.errors import ConfigError, NonFiniteError
from lowland.evaluate.calibration import reliability_of
from lowland.evaluate.evaluator import points_of, run
from lowland.evaluate.metrics import figures, total_variance
from lowland.progress import Progress
from lowland.records import Predictive


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
        keep: "probs" keeps everything; "target" one number an item and row; "none" the metrics.
        batchnorm: "refresh" re-estimates statistics for every draw, "frozen" does not.
        count: rows to read, for loaders without an end.
        strategy, chunk: by hand what the planner would choose, see `lowland.evaluate.planner`.
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
    if keep not in ("probs", "target", "none"):
        raise ConfigError(f"keep: expected 'probs', 'target' or 'none', got {keep!r}.")
    points, total = points_of(post, samples, seed)
    average = Average(surface.task)
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

    def __init__(self, task: Task) -> None:
        self.task = task
        self.samples = 0
        self._sums: list[dict[str, Tensor]] = []  # by batch
        self._log_sums: list[Tensor | None] = []  # logsumexp of log-likelihoods, (items,)
        self._targets: list[Any] = []
        self._masks: list[Tensor | None] = []
        self._curve: list[float] = []
        self._partial: Tensor | None = None  # (n,) of the chunk under way
        self._items = 0

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        task, n = self.task, len(outputs)
        if n == 1:
            statistics = task.statistics(outputs[0])
        else:
            stacked = torch.func.vmap(task.statistics)(outputs)
            statistics = {name: values.sum(0) for name, values in stacked.items()}
        if index == len(self._sums):
            self._sums.append({name: v.clone() for name, v in statistics.items()})
            self._targets.append(target)
            self._masks.append(None if target is None else task.valid(target))
            self._log_sums.append(None)
        else:
            for name, values in statistics.items():
                self._sums[index][name] += values
        if target is None:
            return
        log_probs = -likelihoods(task, outputs, target)  # (n, items)
        if log_probs.shape[0] > 1:
            log_probs = log_probs.logcumsumexp(0)
        before = self._log_sums[index]
        if before is not None:
            log_probs = torch.logaddexp(before, log_probs)
        self._log_sums[index] = log_probs[-1]
        mask = self._masks[index]
        valid = log_probs if mask is None else log_probs[:, mask]
        part = valid.sum(1, dtype=torch.float64)
        self._partial = part if self._partial is None else self._partial + part
        if self.samples == 0:
            self._items += valid.shape[1]

    def end(self, first: int, n: int) -> None:
        self.samples += n
        if self._partial is None:
            return
        counts = torch.arange(first + 1, first + n + 1, dtype=torch.float64)
        curve = counts.log() - self._partial.cpu() / self._items
        self._partial = None
        for draw, value in enumerate(curve.tolist(), start=first):
            if not math.isfinite(value):
                raise NonFiniteError(
                    f"draw {draw} has a loss of {value}; lower the posterior's scale, or look at "
                    "the training run."
                )
            self._curve.append(value)

    def averages(self) -> dict[str, Tensor]:
        """Means over samples, all rows."""
        names = self._sums[0]
        return {n: torch.cat([part[n] for part in self._sums]).div_(self.samples) for n in names}

    def log_prob(self) -> Tensor | None:
        """Log of the mean likelihood of the items that count."""
        parts = []
        for values, mask in zip(self._log_sums, self._masks, strict=True):
            if values is None:
                return None
            parts.append(values if mask is None else values[mask])
        return torch.cat(parts) - math.log(self.samples)

    def target(self) -> Tensor | None:
        """The targets of all rows, where they are tensors that fit together."""
        if any(not isinstance(target, Tensor) for target in self._targets):
            return None
        if len({target.shape[1:] for target in self._targets}) > 1:
            return None
        return torch.cat(self._targets)

    def predictive(self, keep: str = "probs") -> Predictive:
        """The record of what was averaged."""
        task = self.task
        averages, log_prob, target = self.averages(), self.log_prob(), self.target()
        found: dict[str, Any] = {}
        if log_prob is not None:
            found["nll_by_samples"] = torch.tensor(self._curve, dtype=torch.float64)
            found["figures"] = (
                {"nll": self._curve[-1]}
                if target is None
                else figures(task, averages, log_prob, target)
            )
            if target is not None and "probs" in averages:
                found["reliability"] = reliability_of(task, averages["probs"], target)
        if keep != "none":
            found |= {"target_log_prob": log_prob, **_information(task, averages)}
        if keep == "probs":
            found |= {"probs": averages.get("probs"), "targets": target}
            if isinstance(task, Regression):
                found |= _in_units(task, averages, target)
        found = {k: v.cpu() if isinstance(v, Tensor) else v for k, v in found.items()}
        return Predictive(task.kind, self.samples, **found)


def likelihoods(task: Task, outputs: Tensor, target: Any) -> Tensor:
    """Negative log-likelihoods (n, items) of outputs (n, B, ...)."""
    if len(outputs) == 1:
        return task.nll(outputs[0], target).unsqueeze(0)
    return torch.func.vmap(lambda output: task.nll(output, target))(outputs)


def _information(task: Task, averages: dict[str, Tensor]) -> dict[str, Tensor]:
    """Entropy of the average, and its excess over the average entropy: the mutual information."""
    if "probs" not in averages or "expected_entropy" not in averages:
        return {}
    probs = averages["probs"]
    if isinstance(task, Classification):
        entropy = task.entropy(probs)
    else:
        entropy = -torch.special.xlogy(probs, probs).sum(1)
    information = (entropy - averages["expected_entropy"]).clamp_min(0)  # negative by rounding
    return {"entropy": entropy, "mutual_information": information}


def _in_units(
    task: Regression, averages: dict[str, Tensor], target: Tensor | None
) -> dict[str, Tensor | None]:
    mean, variance = total_variance(averages)
    shift, std = task.target_mean.to(mean.device), task.target_std.to(mean.device)
    return {
        "mean": mean * std + shift,
        "variance": variance * std**2,
        "targets": None if target is None else target.double() * std + shift,
    }
