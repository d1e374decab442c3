"""The streaming Bayesian model average: O(N C) memory, whatever the number of samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Unpack

from lowland import checks
from lowland.core import LossSurface
from lowland.core.options import EvalKeywords
from lowland.evaluate.batch_groups import ReplayedPoints, batch_groups
from lowland.evaluate.batchnorm_statistics import require_training_statistics
from lowland.evaluate.engine import Evaluation
from lowland.evaluate.model_average import KEEPS, ModelAverage
from lowland.evaluate.planner import model_point
from lowland.evaluate.predictive_builder import PredictiveBuilder
from lowland.evaluate.weights import iter_weights
from lowland.progress import Progress, reporting
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

    Probabilities are averaged, never logits; log-likelihoods by logsumexp over samples. For
    regression the result is the mean and total variance of the mixture of Gaussians, and its exact
    density at the target.

    Args:
        surface: model, task and the examples for BatchNorm statistics.
        post: a posterior, moments such as `SWAG`, weights (P,) or (n, P), or an iterable of (P,).
        loader: examples to predict, with or without targets; None: the surface's own.
        samples: number of draws; None: 30, or all members of a finite posterior.
        seed: seed of the draws.
        keep: "probs" keeps everything. "target" keeps three numbers per item: the log of its mean
            likelihood, its entropy and its mutual information; "none" keeps the metrics alone.
            Averages of probabilities are then held for a few batches at a time, at most 64 MiB or
            one batch, so that a language model's vocabulary is not held for every token. All
            samples are evaluated on these batches before the next ones are read: each draw is made
            again for every group of batches, and its BatchNorm statistics are estimated once. An
            iterator of weights, and a task with `metrics` of its own, need the averages of all
            batches. "nll" averages no probabilities: the metrics are those of the likelihood.
        progress: True for a bar, or a callable of (done, total).
        options: `batchnorm`, `count`, `strategy`, `chunk`, `threads`, or `options=` with all of
            them: how weights are evaluated, see `EvalOptions`.

    Raises:
        DataError: an empty or changing loader, labels out of range. LayoutError: weights of
            another model. NonFiniteError: a draw whose loss is NaN or infinite.

    >>> import torch
    >>> from lowland.core import Classification
    >>> net = torch.nn.Linear(1, 2, bias=False)
    >>> data = [(torch.ones(1, 1), torch.tensor([0]))]
    >>> surface = LossSurface(net, Classification(), data)
    >>> pred = predict(surface, [torch.tensor([0.0, 0.0]), torch.tensor([100.0, 0.0])])
    >>> pred.probs, round(pred.metrics()["nll"], 4)  # -log(3/4)
    (tensor([[0.7500, 0.2500]]), 0.2877)
    """
    checks.choice("keep", keep, KEEPS)
    eval_options = surface.options.override(**options)
    points, total = iter_weights(surface, post, samples, seed)
    points = require_training_statistics(points, surface, loader, eval_options)
    data = surface.replayable(loader, count=eval_options.count)
    # an iterator of weights can be read once: the averages of all batches are held
    once = isinstance(points, Iterator)
    groups = [(data, True)] if once else batch_groups(surface, data, keep)
    builder, task, done = PredictiveBuilder(keep), surface.task, 0
    with reporting(progress, "predict") as report:
        for group, is_last in groups:
            average = ModelAverage(task, keep=keep, example=surface.example, errors=True)
            if not (done or is_last):  # the next groups use the same buffers and the same plan
                points = ReplayedPoints(surface, points, eval_options)
                first = Evaluation(surface, [(group, average)], eval_options, total=total)
                planned = eval_options.with_plan(first.plan(model_point(surface)))
                eval_options = replace(planned, batchnorm="frozen")
            evaluation = Evaluation(surface, [(group, average)], eval_options, total=total)
            whole = total if is_last and not done else None  # known for a single group alone

            def report_group(sample: int, _: int | None, before: int = done) -> None:
                report(before + sample, whole)  # noqa: B023 - called in this iteration

            evaluation.run(points, progress=report_group)
            builder.add(average)
            task, done = average.task, done + average.samples
    return builder.predictive()
