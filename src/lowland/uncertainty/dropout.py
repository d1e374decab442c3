"""Monte Carlo dropout: an average over random dropout masks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lowland import checks
from lowland.core import EvalOptions, LossSurface, Point
from lowland.core.call import check_batch
from lowland.core.seeds import fork_torch_rng, seed_for
from lowland.errors import ConfigError
from lowland.evaluate.batch_groups import batch_groups
from lowland.evaluate.model_average import ModelAverage
from lowland.evaluate.predictive_builder import PredictiveBuilder
from lowland.posteriors.base import SAMPLES
from lowland.progress import Progress, reporting
from lowland.records import Predictive


def mc_dropout(
    surface: LossSurface,
    w: Tensor | Point,
    loader: Iterable[Any] | None = None,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    keep: str = "probs",
    batchnorm: str | None = None,
    progress: Progress = False,
) -> Predictive:
    r"""\(p(y|x) \approx \frac1S \sum_s p(y|x, w, m_s)\) over dropout masks (Gal & Ghahramani 2016).

    The passes are those of training, except that BatchNorm uses its statistics: dropout layers,
    dropout inside attention and recurrent layers, and `F.dropout(x, training=self.training)` are
    on. As in training, each example has its own mask.

    Args:
        surface, loader, keep, batchnorm, progress: as for `predict`.
        w: one weight vector, trained with dropout.
        samples: number of passes.
        seed: seed of the masks: those of batch b in pass s are a function of (seed, s, b), so that
            the result depends on the batches.

    Raises:
        ConfigError: a network without dropout.

    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> net = nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 1, bias=False))
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), [(torch.ones(1, 1),) * 2])
    >>> pred = mc_dropout(surface, torch.ones(1), samples=300)  # of 0 and 2, each half the time
    >>> round(float(pred.mean)), round(float(pred.variance))
    (1, 2)
    """
    samples, seed = checks.whole("samples", samples, least=1), checks.seed(seed)
    options = surface.options.override(batchnorm=batchnorm)
    forward = _DropoutForward(surface, surface.point(w), options, seed)
    if not forward.is_random():
        raise ConfigError(
            "the network has no dropout: two passes in training mode are equal; average over "
            "weights with predict instead."
        )
    data = surface.replayable(loader)
    builder, task, first_batch = PredictiveBuilder(keep), surface.task, 0
    with torch.no_grad(), reporting(progress, "MC dropout") as report:
        for group, is_last in batch_groups(surface, data, keep):
            resident = group.resident()
            average = ModelAverage(task, keep=keep, example=surface.example, errors=True)
            for sample in range(samples):
                batches = group.batches(ordered=True) if resident is None else resident
                for index, batch in enumerate(batches):
                    args, kwargs, target = surface.task.parts(batch)
                    surface.template.require_replayable(args, kwargs)
                    output = forward(batch, sample, first_batch + index)
                    if sample == 0:
                        check_batch(surface.task, (args, kwargs), output, target)
                    average.add(index, output.unsqueeze(0), target)
                average.end(sample, 1)
                report(sample + 1, samples if is_last and not first_batch else None)
            first_batch += len(average.batches)
            builder.add(average)
            task = average.task
    return builder.predictive()


def has_dropout(surface: LossSurface, w: Tensor | Point) -> bool:
    """Whether two passes in training mode differ, with BatchNorm in evaluation mode.

    >>> from torch import nn
    >>> from lowland.core import Classification
    >>> data = [(torch.ones(8, 9), torch.zeros(8).long())]
    >>> for p in (0.0, 0.5):
    ...     net = nn.Sequential(nn.Linear(9, 9), nn.Dropout(p), nn.Linear(9, 2))
    ...     surface = LossSurface(net, Classification(), data)
    ...     has_dropout(surface, surface.layout.flatten(net))
    False
    True
    """
    frozen = EvalOptions(batchnorm="frozen")
    return _DropoutForward(surface, surface.point(w), frozen, seed=0).is_random()


class _DropoutForward:
    """Forward passes of one weight vector with dropout."""

    def __init__(self, surface: LossSurface, point: Point, options: EvalOptions, seed: int) -> None:
        self.surface = surface
        self.parameters = surface.layout.materialise(point.weights)
        self.buffers = surface.buffers_for(point, options)
        self.seed = seed

    def __call__(self, batch: Any, sample: int, index: int) -> Tensor:
        """The outputs of pass `sample` for batch `index`; the caller's random state stays."""
        args, kwargs, _ = self.surface.task.parts(batch)
        with fork_torch_rng(seed_for("dropout", self.seed, sample, index), self.surface.device):
            return self.surface.forward(self.parameters, self.buffers, args, kwargs, mode="dropout")

    @torch.no_grad()
    def is_random(self) -> bool:
        """Whether two passes over the first batch differ."""
        batch = self.surface.data.first()
        return not torch.equal(self(batch, 0, 0), self(batch, 1, 0))
