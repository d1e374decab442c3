"""The streaming Bayesian model average: O(N C) memory, whatever the number of samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Unpack

from lowland.core import LossSurface
from lowland.core.options import EvalKeywords
from lowland.errors import ConfigError
from lowland.evaluate.batch_groups import Replay, groups
from lowland.evaluate.batchnorm_statistics import require_training_statistics
from lowland.evaluate.engine import Evaluation, replayable_loader
from lowland.evaluate.model_average import KEEPS, Average
from lowland.evaluate.planner import own_point
from lowland.evaluate.predictive_builder import Summary
from lowland.evaluate.weights import iter_weights
from lowland.progress import Progress, Report, reporting
from lowland.records import Predictive


def predict(
    surface: LossSurface,
    post: Any,
    loader: Iterable[Any] | None = None,
    *,
    samples: int | None = None,
    seed: int = 0,
    keep: str = "probs",
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
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
        keep: "probs" keeps everything. "target" keeps what each item gives: the log of its mean
            likelihood, entropy and mutual information; "none" the metrics alone. Averages of
            probabilities are then held for a few batches at a time, of at most 64 MiB or of one
            batch, so that a language model's vocabulary is not held for every token. All samples
            see these batches before the next are read: each draw is made again for each of them,
            and its BatchNorm statistics are estimated once. An iterator, which gives its weights
            once, and a task with `metrics` of its own hold the averages of all batches. "nll" does
            not average probabilities in the first place: the metrics are those of the likelihood.
        progress: True for a bar, or a callable of (done, total).
        options: `batchnorm`, `count`, `strategy`, `chunk`, `threads`, or `options=` with all of
            them: how weights are evaluated, see `EvalOptions`.

    Raises:
        DataError: an empty or changing loader, labels out of range. LayoutError: weights of
            another model. NonFiniteError: a draw whose loss is NaN or infinite.

    >>> import torch
    >>> from lowland.core import Classification
    >>> net = torch.nn.Linear(1, 2, bias=False)
    >>> rows = [(torch.ones(1, 1), torch.tensor([0]))]
    >>> surface = LossSurface(net, Classification(), rows)
    >>> pred = predict(surface, [torch.tensor([0.0, 0.0]), torch.tensor([100.0, 0.0])])
    >>> pred.probs, round(pred.metrics()["nll"], 4)  # -log(3/4)
    (tensor([[0.7500, 0.2500]]), 0.2877)
    """
    if keep not in KEEPS:
        raise ConfigError(f"keep: expected one of {', '.join(KEEPS)}, got {keep!r}.")
    how = surface.options.override(**options)
    points, total = iter_weights(surface, post, samples, seed)
    points = require_training_statistics(points, surface, loader, how)
    rows = replayable_loader(surface, loader, count=how.count)
    # what can be gone through once is, with all averages held
    grouped = [(rows, True)] if isinstance(points, Iterator) else groups(surface, rows, keep)
    summary, task, done = Summary(keep), surface.task, 0
    with reporting(progress, "predict") as report:
        for group, last in grouped:
            average = Average(task, keep=keep, example=surface.example, errors=True)
            if not (done or last):  # others follow, with these buffers and by this plan
                points = Replay(surface, points, how)
                first = Evaluation(surface, [(group, average)], how, total=total)
                how = replace(how.following(first.plan(own_point(surface))), batchnorm="frozen")
            evaluation = Evaluation(surface, [(group, average)], how, total=total)
            evaluation.run(points, progress=_Offset(report, done, whole=last and not done))
            summary.add(average)
            task, done = average.task, done + average.samples
    return summary.predictive()


class _Offset:
    """Reports work that comes after other work; the total is known of one group alone."""

    def __init__(self, report: Report, before: int, *, whole: bool) -> None:
        self.report, self.before, self.whole = report, before, whole

    def __call__(self, done: int, total: int | None) -> None:
        self.report(self.before + done, total if self.whole else None)
