"""Monte Carlo dropout: a network that is a random function of its input."""

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
from lowland.evaluate.batch_groups import groups
from lowland.evaluate.model_average import Average
from lowland.evaluate.predictive_builder import Summary
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

    The passes are as in training, but for BatchNorm, which uses its statistics: dropout layers,
    dropout inside attention and recurrent layers, and `F.dropout(x, training=self.training)` are
    on. As in training each row has a mask of its own.

    Args:
        surface, loader, keep, batchnorm, progress: as for `predict`. w: one weight vector, trained
            with dropout. samples: passes.
        seed: of the masks: batch b of pass s has those of (seed, s, b), so that the result depends
            on how rows fall into batches.

    Raises:
        ConfigError: a network that is the same function in every pass.

    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> net = nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 1, bias=False))
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), [(torch.ones(1, 1),) * 2])
    >>> pred = mc_dropout(surface, torch.ones(1), samples=300)  # of 0 and 2, each half the time
    >>> round(float(pred.mean)), round(float(pred.variance))
    (1, 2)
    """
    samples, seed = checks.whole("samples", samples, least=1), checks.seed(seed)
    call = _Dropout(surface, surface.point(w), surface.options.override(batchnorm=batchnorm), seed)
    if not call.is_random():
        raise ConfigError(
            "the network has no dropout: two passes in training mode are equal; average over "
            "weights with predict instead."
        )
    data = surface.replayable(loader)
    summary, task, first = Summary(keep), surface.task, 0
    with torch.no_grad(), reporting(progress, "MC dropout") as report:
        for group, last in groups(surface, data, keep):
            resident = group.resident()
            average = Average(task, keep=keep, example=surface.example, errors=True)
            for number in range(samples):
                batches = group.batches(ordered=True) if resident is None else resident
                for index, batch in enumerate(batches):
                    args, kwargs, target = surface.task.parts(batch)
                    surface.template.require_replayable(args, kwargs)
                    output = call(batch, number, first + index)
                    if number == 0:
                        check_batch(surface.task, (args, kwargs), output, target)
                    average.add(index, output.unsqueeze(0), target)
                average.end(number, 1)
                report(number + 1, samples if last and not first else None)
            first += len(average.batches)
            summary.add(average)
            task = average.task
    return summary.predictive()


def has_dropout(surface: LossSurface, w: Tensor | Point) -> bool:
    """Whether passes in training mode, BatchNorm aside, differ.

    >>> from torch import nn
    >>> from lowland.core import Classification
    >>> rows = [(torch.ones(8, 9), torch.zeros(8).long())]
    >>> for p in (0.0, 0.5):
    ...     net = nn.Sequential(nn.Linear(9, 9), nn.Dropout(p), nn.Linear(9, 2))
    ...     surface = LossSurface(net, Classification(), rows)
    ...     has_dropout(surface, surface.layout.flatten(net))
    False
    True
    """
    return _Dropout(surface, surface.point(w), EvalOptions(batchnorm="frozen"), 0).is_random()


class _Dropout:
    """One weight vector's passes."""

    def __init__(self, surface: LossSurface, point: Point, options: EvalOptions, seed: int) -> None:
        self.surface = surface
        self.parameters = surface.layout.materialise(point.weights)
        self.buffers = surface.buffers_for(point, options)
        self.seed = seed

    def __call__(self, batch: Any, number: int, index: int) -> Tensor:
        """The outputs of pass `number` for batch `index`; the caller's random state stays."""
        args, kwargs, _ = self.surface.task.parts(batch)
        with fork_torch_rng(seed_for("dropout", self.seed, number, index), self.surface.device):
            return self.surface.forward(self.parameters, self.buffers, args, kwargs, mode="dropout")

    @torch.no_grad()
    def is_random(self) -> bool:
        """Whether two passes over the first batch differ."""
        batch = self.surface.data.first()
        return not torch.equal(self(batch, 0, 0), self(batch, 1, 0))
