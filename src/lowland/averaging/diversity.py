"""How different networks are, as weights and as functions, and what their ensemble gains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Unpack

import torch
from torch import Tensor

from lowland.averaging.members import read_members
from lowland.averaging.weighted_mean import weighted_mean
from lowland.core import Classification, LanguageModeling, LossSurface, Point, Regression, Task
from lowland.core.options import EvalKeywords
from lowland.errors import ConfigError
from lowland.evaluate.engine import Evaluation
from lowland.evaluate.nll import nll_per_item, resolve_task, vmap_points
from lowland.keywords import hinted
from lowland.landscape.similarity import cosines_and_distances
from lowland.progress import Progress
from lowland.records import DiversityResult


@hinted
def diversity(
    members: Any,
    surface: LossSurface,
    loader: Iterable[Any] | None = None,
    *,
    start: Tensor | Point | None = None,
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> DiversityResult:
    r"""Angles and distances of weights, disagreement and KL divergence of predictions, and the gap
    between the NLL of the members and that of their ensemble.

    \(\mathrm{KL}(p_i \| p_j) = \frac1N \sum_x \sum_y p_i(y|x) \log \frac{p_i(y|x)}{p_j(y|x)}\); the
    gap is \(\frac1n \sum_i L(w_i) - L_{ens} \ge 0\), where the ensemble's likelihood is the mean of
    the members' (Lakshminarayanan et al. 2017; Fort et al. 2019). Where the gap is near zero, an
    ensemble costs n forward passes for nothing, and one average of the weights may do as well.

    Args:
        members: see `soup`; at least two.
        surface: model, task and the examples for BatchNorm statistics.
        loader: examples to predict; without targets there is no NLL. None: the surface's own.
        start: where angles are measured, too, such as the network that all members began with.
        progress, options: as for `predict`. The predictions of all members are held: limit their
            number by `count=`.

    Raises:
        ConfigError: fewer than two members, or one that is equal to their mean or to the start.
            LayoutError: weights of another model. NonFiniteError: NaN or infinite weights.

    >>> from lowland.core import Regression
    >>> data = [(torch.ones(1, 1), torch.zeros(1, 1))]
    >>> net = torch.nn.Linear(1, 1, bias=False)
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), data)
    >>> result = diversity(torch.tensor([[-1.0], [1.0]]), surface)
    >>> result.kl[0, 1], result.cosine_mean[0, 1]  # (1 + 1)² / 2, on opposite sides
    (tensor(2., dtype=torch.float64), tensor(-1., dtype=torch.float64))
    """
    read = read_members(surface, members)
    points, names = list(read), read.names
    if len(points) < 2:
        raise ConfigError(f"members: expected at least 2 to compare, got {len(points)}.")
    mean = weighted_mean(points, [1.0] * len(points))
    cosine_mean, distance = cosines_and_distances(surface, points, mean, names)
    cosine_start = None
    if start is not None:
        origin = surface.point(start)
        cosine_start, _ = cosines_and_distances(surface, points, origin, names)
    eval_options = surface.options.override(**options)
    sink = _Predictions(surface.task, surface.example)
    evaluation = Evaluation(surface, [(loader, sink)], eval_options, total=len(points))
    evaluation.run(points, progress=progress, label="diversity")
    member_nll, ensemble_nll = sink.nlls()
    return DiversityResult(
        names,
        cosine_mean,
        cosine_start,
        distance,
        sink.disagreement(),
        sink.kl(),
        member_nll,
        ensemble_nll,
        sink.items,
        eval_options.batchnorm if surface.has_batchnorm else "none",
    )


class _Predictions:
    """A `Sink` that holds the predictions of every point: logarithms of probabilities (rows, C), or
    means and variances (rows,), and log-likelihoods (items,)."""

    holds_examples = True

    def __init__(self, task: Task, example: Callable[[], Any] | None) -> None:
        self.task = task
        self.example = example  # returns a labelled batch, for examples without labels
        self._log_unit = 0.0  # what an NLL grows by in the target's own units
        self._rows_per_item = 1
        self._parts: dict[str, list[Tensor]] = {}  # (n, rows, ...) a batch, of this chunk
        self._chunks: dict[str, list[Tensor]] = {}  # (n, all rows, ...)

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        task = self.task = resolve_task(self.task, outputs, target, self.example)
        mask = None if target is None else task.valid(target)
        values = self._predictions(task, outputs)
        if target is not None:
            values["log_likelihood"] = -nll_per_item(task, outputs, target).double()
        for name, value in values.items():
            valid = value if mask is None or value.shape[1] != len(mask) else value[:, mask]
            self._parts.setdefault(name, []).append(valid.cpu())

    def _predictions(self, task: Task, outputs: Tensor) -> dict[str, Tensor]:
        if isinstance(task, Classification | LanguageModeling):
            log_probs = vmap_points(task.log_probs, outputs).movedim(2, -1)  # (n, B, ..., C)
            form = getattr(task, "form", None)
            self._rows_per_item = log_probs.shape[2] if form == "multilabel" else 1
            return {"log_probs": log_probs.flatten(1, -2)}
        if isinstance(task, Regression):
            moments = [torch.stack(task.moments(output)) for output in outputs]
            mean, variance = torch.stack(moments, 1).double()
            self._rows_per_item = mean[0].shape[task.axis(mean[0].shape)]
            self._log_unit = task.log_scale(mean[0])
            return {"mean": mean.flatten(1), "variance": variance.flatten(1)}
        return {}

    def end(self, first: int, n: int) -> None:
        for name, parts in self._parts.items():
            self._chunks.setdefault(name, []).append(torch.cat(parts, 1))
        self._parts = {}

    def result(self, name: str) -> Tensor | None:
        """(n, rows, ...) of all points; None: the task or the examples have none."""
        return torch.cat(self._chunks[name]) if name in self._chunks else None

    @property
    def items(self) -> int:
        """How many there are for each point."""
        rows = {name: chunks[0].shape[1] for name, chunks in self._chunks.items()}
        if "log_likelihood" in rows:
            return rows["log_likelihood"]
        return next(iter(rows.values()), 0) // self._rows_per_item

    def nlls(self) -> tuple[Tensor | None, float]:
        """The NLL (n,) of the points, and that of the mean of their likelihoods."""
        values = self.result("log_likelihood")
        if values is None:
            return None, math.nan
        ensemble = values.logsumexp(0) - math.log(len(values))
        return self._log_unit - values.mean(1), self._log_unit - float(ensemble.mean())

    def disagreement(self) -> Tensor | None:
        """(n, n): the share of rows whose most probable classes differ."""
        log_probs = self.result("log_probs")
        if log_probs is None:
            return None
        classes = log_probs.argmax(2)
        return torch.stack([(classes != row).double().mean(1) for row in classes])

    def kl(self) -> Tensor | None:
        """(n, n): the mean over items of the divergence of the second from the first."""
        log_probs, mean = self.result("log_probs"), self.result("mean")
        if log_probs is not None:
            sums = [[_kl(p, q) for q in log_probs] for p in log_probs]
        elif mean is not None:
            variance = self.result("variance")
            assert variance is not None
            points = list(zip(mean, variance, strict=True))
            sums = [[_gaussian_kl(*p, *q) for q in points] for p in points]
        else:
            return None
        return torch.tensor(sums, dtype=torch.float64) / self.items


def _kl(log_p: Tensor, log_q: Tensor) -> float:  # (rows, C) each
    """The sum over rows; classes of probability zero count nothing."""
    p, difference = log_p.double().exp(), log_p.double() - log_q.double()
    return float(torch.where(p > 0, p * difference, 0.0).sum())


def _gaussian_kl(mean: Tensor, variance: Tensor, other: Tensor, other_variance: Tensor) -> float:
    ratio = variance / other_variance
    return float((ratio - 1 - ratio.log() + (mean - other).square() / other_variance).sum() / 2)
